"""The pass that schedules every kernel of a module and lays its weights out as the kernel wants.

    main:  y = call_tir(kernel, (x, W))      becomes      y = call_tir(kernel', (x, W'))

where ``W'`` is ``W`` permuted and padded with NumPy to the layout that the chosen rule asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from math import inf
from typing import Any

import tvm
from tvm import relax
from tvm.ir import GenericConst, GlobalVar
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.tirx import PrimFunc

from tvmext.arch import Arch, CpuArch

from .layout import relayout
from .memory import Memory
from .price import cycles
from .rule import Declined, Kernel, Rule, Scheduled
from .select import Decide, Price, Selection, by_rule, manner, plain, select, unpriced

EVERY: Mapping[str, Any] = {}
"""No dim has a size of its own: all have the usual one."""

SCHEDULED = "tvmext.scheduled"
"""Attribute of a PrimFunc that a rule has scheduled."""


@tvm.transform.module_pass(opt_level=0, name="ScheduleKernels")
class ScheduleKernels:
    """Schedule each PrimFunc that is called from Relax; `selections` tells how, in order.

    `seen` is told of the module as it was before; `decide` makes the decisions, `price` predicts
    what they take. With `first` only so many are scheduled, the others left as they are: on CPUs
    they are slow that way, but right.
    """

    def __init__(
        self,
        arch: Arch,
        rules: Sequence[Rule],
        seen: Callable[[tvm.IRModule], None] = lambda _mod: None,
        decide: Decide = by_rule,
        first: int | None = None,
        price: Price = unpriced,
    ) -> None:
        self.arch = arch
        self.rules = tuple(rules)
        self.selections: list[Selection] = []
        self.seen = seen
        self.decide = decide
        self.first = first
        self.price = price

    def decisions(self) -> dict[str, dict[str, Any]]:
        """How each kernel was scheduled, as plain data: {kernel: {"rule", "decision"}}.

        Where `decide` has something to say, "record" has it; "seconds" is the price, if it has one.
        """
        return {
            one.kernel: {
                "rule": one.rule,
                "decision": plain(one.decision),
                **({"record": one.why} if one.why else {}),
                **({"seconds": one.seconds} if one.seconds is not None else {}),
            }
            for one in self.selections
        }

    def reading(
        self, func: PrimFunc, constant_args: frozenset[int], sizes: Mapping[str, Any] = EVERY
    ) -> tuple[str, Any]:
        """How a kernel would be scheduled, as in `manner`, and its price; GPUs have none.

        `sizes` of free dims are numbers or arrays, and so is the price.
        """
        kernel = Kernel("", func, constant_args)
        found = manner(kernel, self.arch, self.rules)
        if not found or not isinstance(self.arch, CpuArch):
            return found, inf
        return found, cycles(kernel, Memory(self.arch, sizes))

    def alike(self, func: PrimFunc) -> Hashable | None:
        """What kernels have in common whose other sizes make them no faster; None for others."""
        for rule in self.rules:
            if getattr(rule, "tells_sizes", False):
                workload = rule.match(Kernel("", func))
                if not isinstance(workload, Declined):
                    return rule.name, workload
        return None

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        self.selections.clear()
        self.seen(mod)
        constants = constant_args(mod)
        functions = dict(mod.functions_items())
        relaid: dict[GlobalVar, Scheduled] = {}
        for var, func in mod.functions_items():
            if not isinstance(func, PrimFunc) or SCHEDULED in func.attrs:
                continue
            if len(self.selections) == self.first:
                break
            kernel = Kernel(var.name_hint, func, constants.get(var, frozenset()))
            result, selection = select(kernel, self.arch, self.rules, self.decide, self.price)
            self.selections.append(selection)
            functions[var] = _same_interface(func, result.func)
            if result.layouts:
                relaid[var] = Scheduled(functions.pop(var), result.layouts)
        scheduled = tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)
        return _relay_weights(scheduled, relaid) if relaid else scheduled


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


def _callee(call: relax.Call) -> GlobalVar | None:
    """The PrimFunc that a ``call_tir`` or ``call_tir_inplace`` runs."""
    if getattr(call.op, "name", "") in ("relax.call_tir", "relax.call_tir_inplace"):
        return call.args[0]
    return None


def constant_args(mod: tvm.IRModule) -> dict[GlobalVar, frozenset[int]]:
    """Per PrimFunc, the parameters that are constants at every call."""
    found: dict[GlobalVar, frozenset[int]] = {}
    for call in _call_sites(mod):
        here = frozenset(
            i for i, arg in enumerate(call.args[1].fields) if isinstance(arg, GenericConst)
        )
        callee = _callee(call)
        found[callee] = found[callee] & here if callee in found else here
    return found


def calls_of_kernels(mod: tvm.IRModule) -> list[GlobalVar]:
    """The PrimFuncs that are called, once for each place."""
    return [_callee(call) for call in _call_sites(mod)]


def _relay_weights(mod: tvm.IRModule, relaid: dict[GlobalVar, Scheduled]) -> tvm.IRModule:
    """Add the functions in `relaid`, which `mod` calls but lacks, and permute their weights.

    A GlobalVar carries the type of its function, so a new layout takes a new variable.
    """
    rewriter = _WeightRewriter(mod, relaid)
    for var, func in mod.functions_items():
        if isinstance(func, relax.Function):
            rewriter.builder_.update_func(var, rewriter.visit_expr(func))
    return rewriter.builder_.get()


@mutator
class _WeightRewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, relaid: dict[GlobalVar, Scheduled]) -> None:
        super().__init__(mod)
        self.layouts = {old: scheduled.layouts for old, scheduled in relaid.items()}
        self.renamed = {
            old: self.builder_.add_func(scheduled.func, old.name_hint)
            for old, scheduled in relaid.items()
        }
        self.done: dict[tuple[GenericConst, GlobalVar, int], GenericConst] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        callee = _callee(call)
        if callee not in self.renamed:
            return self.visit_expr_post_order(call)
        args = list(call.args[1].fields)
        for index, layout in self.layouts[callee].items():
            key = (args[index], callee, index)
            if key not in self.done:
                packed = relayout(args[index].value.numpy(), layout)
                self.done[key] = relax.const(tvm.runtime.tensor(packed))
            args[index] = self.done[key]
        new_args = [self.renamed[callee], relax.Tuple(args), *call.args[2:]]
        return self.visit_expr_post_order(
            relax.Call(call.op, new_args, call.attrs, ty_args=call.ty_args)
        )
