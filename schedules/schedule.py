"""The pass that schedules every kernel of a module and lays its weights out as the kernel wants.

    main:  y = call_tir(kernel, (x, W))      becomes      y = call_tir(kernel', (x, W'))

where ``W'`` is ``W`` permuted and padded with NumPy to the layout that the chosen rule asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.tirx import PrimFunc

from tvmext.arch import Arch

from .layout import relayout
from .rule import Kernel, Layout, Rule
from .select import Selection, select

SCHEDULED = "tvmext.scheduled"
"""Attribute of a PrimFunc that a rule has scheduled."""


@tvm.transform.module_pass(opt_level=0, name="ScheduleKernels")
class ScheduleKernels:
    """Schedule each PrimFunc that is called from Relax; `selections` tells how, in order."""

    def __init__(self, arch: Arch, rules: Sequence[Rule]) -> None:
        self.arch = arch
        self.rules = tuple(rules)
        self.selections: list[Selection] = []

    def decisions(self) -> dict[str, dict[str, Any]]:
        """How each kernel was scheduled, as plain data: {kernel: {"rule", "decision"}}."""
        return {
            one.kernel: {"rule": one.rule, "decision": plain(one.decision)}
            for one in self.selections
        }

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        self.selections.clear()
        constant_args = _constant_args(mod)
        layouts: dict[tvm.ir.GlobalVar, dict[int, Layout]] = {}
        scheduled = mod.clone()
        for var, func in mod.functions_items():
            if not isinstance(func, PrimFunc) or SCHEDULED in func.attrs:
                continue
            kernel = Kernel(var.name_hint, func, constant_args.get(var, frozenset()))
            result, selection = select(kernel, self.arch, self.rules)
            self.selections.append(selection)
            layouts[var] = dict(result.layouts)
            scheduled.update_func(var, _same_interface(func, result.func))
        return _relayout_weights(scheduled, layouts)


def plain(decision: Any) -> Any:
    """A decision in terms of JSON: dataclasses become objects, whatever is not plain its text."""
    if is_dataclass(decision) and not isinstance(decision, type):
        return {name.name: plain(getattr(decision, name.name)) for name in fields(decision)}
    if isinstance(decision, list | tuple):
        return [plain(item) for item in decision]
    if decision is None or isinstance(decision, bool | int | float | str):
        return decision
    return str(decision)


def _same_interface(old: PrimFunc, new: PrimFunc) -> PrimFunc:
    """`new` with the attributes that say how `old` is linked and called."""
    for key, value in old.attrs.items():
        if key not in new.attrs:
            new = new.with_attr(key, value)
    if "global_symbol" in new.attrs and "global_symbol" not in old.attrs:
        new = new.without_attr("global_symbol")
    return new.with_attr(SCHEDULED, True)


def _call_sites(mod: tvm.IRModule) -> list[relax.Call]:
    found = []

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and _callee(expr) is not None:
            found.append(expr)

    for _, func in mod.functions_items():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return found


def _callee(call: relax.Call) -> tvm.ir.GlobalVar | None:
    """The PrimFunc that a ``call_tir`` or ``call_tir_inplace`` runs."""
    if getattr(call.op, "name", "") in ("relax.call_tir", "relax.call_tir_inplace"):
        return call.args[0]
    return None


def _constant_args(mod: tvm.IRModule) -> dict[tvm.ir.GlobalVar, frozenset[int]]:
    """Per PrimFunc, the parameters that are constants at every call."""
    found: dict[tvm.ir.GlobalVar, frozenset[int]] = {}
    for call in _call_sites(mod):
        here = frozenset(
            i for i, arg in enumerate(call.args[1].fields) if isinstance(arg, GenericConst)
        )
        callee = _callee(call)
        found[callee] = found[callee] & here if callee in found else here
    return found


def _relayout_weights(
    mod: tvm.IRModule, layouts: dict[tvm.ir.GlobalVar, dict[int, Layout]]
) -> tvm.IRModule:
    if not any(layouts.values()):
        return mod
    rewriter = _WeightRewriter(mod, layouts)
    for var, func in mod.functions_items():
        if isinstance(func, relax.Function):
            rewriter.builder_.update_func(var, rewriter.visit_expr(func))
    return rewriter.builder_.get()


@mutator
class _WeightRewriter(PyExprMutator):
    def __init__(
        self, mod: tvm.IRModule, layouts: dict[tvm.ir.GlobalVar, dict[int, Layout]]
    ) -> None:
        super().__init__(mod)
        self.layouts = layouts
        self.done: dict[tuple[GenericConst, tvm.ir.GlobalVar, int], GenericConst] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        callee = _callee(call)
        wanted = self.layouts.get(callee) if callee is not None else None
        if not wanted:
            return self.visit_expr_post_order(call)
        args = list(call.args[1].fields)
        for index, layout in wanted.items():
            args[index] = self._in_layout(args[index], callee, index, layout)
        new_args = [call.args[0], relax.Tuple(args), *call.args[2:]]
        return self.visit_expr_post_order(
            relax.Call(call.op, new_args, call.attrs, ty_args=call.ty_args)
        )

    def _in_layout(
        self, weight: GenericConst, callee: tvm.ir.GlobalVar, index: int, layout: Layout
    ) -> GenericConst:
        key = (weight, callee, index)
        if key not in self.done:
            packed = relayout(weight.value.numpy(), layout)
            self.done[key] = relax.const(tvm.runtime.tensor(packed))
        return self.done[key]
