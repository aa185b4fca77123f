"""Inputs that the caller gives away are updated where they lie.

    y = call_tir(kernel, (new, x))     becomes     y = call_tir_inplace(kernel', (new, x), [1])

where the kernel copies the input `x` but for some elements (`update`), such as the rows of a cache
at the present position, and `y` is an output. Whoever else reads `x` has to have done so before:
the call goes to the end of its block if nobody there reads `y`. No pass that merges or reorders
kernels may run after this one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from .check import KEPT
from .prims import UnmappedError
from .update import update_in_place


@tvm.transform.module_pass(opt_level=0, name="UpdateDonated")
class UpdateDonated:
    """Update the inputs of main at the positions `donated` in place, where a kernel allows it."""

    def __init__(self, donated: Collection[int]) -> None:
        self.donated = frozenset(donated)

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return _Updater(mod, self.donated).result() if self.donated else mod


class _Updater:
    def __init__(self, mod: tvm.IRModule, donated: Collection[int]) -> None:
        self.builder = relax.BlockBuilder(mod)
        self.mod = mod
        self.main = mod["main"]
        self.holds = {p: p for k, p in enumerate(self.main.params) if k in donated}
        """By variable: the donated input that it is, perhaps under another shape."""
        self.bindings = [b for block in self.main.body.blocks for b in block.bindings]
        for binding in self.bindings:
            value = binding.value
            source = value.args[0] if _calls(value, "relax.reshape") else value
            if isinstance(source, relax.Var) and source in self.holds:
                self.holds[binding.var] = self.holds[source]

    def result(self) -> tvm.IRModule:
        """The module with every update that is possible done in place."""
        taken = {self.holds[var] for var in _reads(self.main.body.body) if var in self.holds}
        blocks = []
        for block in self.main.body.blocks:
            first, last = [], []
            for binding in block.bindings:
                made = binding
                if _calls(binding.value, "relax.call_tir"):
                    made, late = self._updated(binding, block, taken)
                    if late:
                        last.append(made)
                        continue
                first.append(made)
            is_dataflow = isinstance(block, relax.DataflowBlock)
            kind = relax.DataflowBlock if is_dataflow else relax.BindingBlock
            blocks.append(kind([*first, *last]))
        body = relax.SeqExpr(blocks, self.main.body.body)
        main = relax.Function(
            self.main.params, body, self.main.ret_ty, self.main.is_pure, self.main.attrs
        )
        self.builder.update_func(self.mod.get_global_var("main"), main)
        return relax.transform.DeadCodeElimination()(self.builder.get())

    def _updated(
        self, binding: relax.VarBinding, block: Any, taken: set[relax.Var]
    ) -> tuple[relax.VarBinding, bool]:
        """The binding, in place if it can be, and whether it belongs at the end of its block."""
        call = binding.value
        held = [arg for arg in call.args[1].fields if self.holds.get(arg) is not None]
        for arg in held:
            if self.holds[arg] in taken or not _alike(arg, binding.var):
                continue
            try:
                late = self._order(binding, arg, block)
                made = self._in_place(call, arg)
            except UnmappedError as reason:
                func = self.mod[call.args[0]].with_attr(KEPT, str(reason))
                self.builder.update_func(call.args[0], func)
                continue
            taken.add(self.holds[arg])
            return relax.VarBinding(binding.var, made), late
        return binding, False

    def _order(self, binding: relax.VarBinding, arg: relax.Var, block: Any) -> bool:
        """Whether the update has to wait for others that read the input, to the end of `block`."""
        readers = [
            b.var
            for b in self.bindings
            if b.var is not binding.var
            and b.var not in self.holds
            and any(self.holds.get(v) is self.holds[arg] for v in _reads(b.value))
        ]
        order = {b.var: k for k, b in enumerate(self.bindings)}
        here = order[binding.var]
        inside = {b.var for b in block.bindings}
        later = [var for var in readers if order[var] > here]
        if not later:
            return False
        if any(var not in inside for var in later):
            raise UnmappedError("the input is read after the update")
        if any(binding.var in _reads(b.value) for b in block.bindings):
            raise UnmappedError("both the input and its update are read")
        return True

    def _in_place(self, call: relax.Call, arg: relax.Var) -> relax.Call:
        func = self.mod[call.args[0]]
        fields = list(call.args[1].fields)
        position = next(k for k, field in enumerate(fields) if field.same_as(arg))
        updated = update_in_place(func, func.params[position])
        callee = self.builder.add_func(updated, call.args[0].name_hint)
        return relax.op.call_tir_inplace(callee, relax.Tuple(fields), [position], call.ty)


def _alike(a: relax.Var, b: relax.Var) -> bool:
    """Whether two tensors have one shape and element type."""
    return bool(tvm_ffi.structural_equal(a.ty, b.ty))


def _calls(value: Any, name: str) -> bool:
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") == name


def _reads(value: Any) -> list[relax.Var]:
    found: list[relax.Var] = []
    relax.analysis.post_order_visit(
        value, lambda e: found.append(e) if isinstance(e, relax.Var) else None
    )
    return found
