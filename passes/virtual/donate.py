"""Inputs that the caller gives away are updated where they lie.

    y = call_tir(kernel, (new, x))     becomes     y = call_tir_inplace(kernel', (new, x), [1])

where the kernel copies the input `x` but for some elements (`update`), such as the rows of a cache
at the present position. Whoever else reads `x` has to have done so before: the call goes to the end
of its block if nobody there reads `y`. No pass that merges or reorders kernels may run after this
one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from tvmext.frontends.reshape import reshape

from .check import KEPT
from .emit import VIEW
from .join import reads
from .merge import Update, merged
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
        self.bindings = [b for block in self.main.body.blocks for b in block.bindings]
        self.order = {binding.var: k for k, binding in enumerate(self.bindings)}
        self.holds = {p: p for k, p in enumerate(self.main.params) if k in donated}
        """By variable: the donated input that it is, perhaps under another shape."""
        for binding in self.bindings:
            value = binding.value
            source = value.args[0] if _calls(value, "relax.reshape") else value
            if isinstance(source, relax.Var) and source in self.holds:
                self.holds[binding.var] = self.holds[source]
        self.taken = {self.holds[v] for v in reads(self.main.body.body) if v in self.holds}
        """Inputs that something writes to already, or that are results."""
        self.updates: dict[relax.Var, Update] = {}

    def result(self) -> tvm.IRModule:
        """The module with every update that is possible done in place."""
        blocks = [
            self._block(block) if isinstance(block, relax.DataflowBlock) else block
            for block in self.main.body.blocks
        ]
        body = relax.SeqExpr(blocks, self.main.body.body)
        main = relax.Function(
            self.main.params, body, self.main.ret_ty, self.main.is_pure, self.main.attrs
        )
        self.builder.update_func(self.mod.get_global_var("main"), main)
        return relax.transform.DeadCodeElimination()(self.builder.get())

    def _block(self, block: relax.DataflowBlock) -> relax.DataflowBlock:
        now: list[relax.VarBinding] = []
        late: list[relax.VarBinding] = []
        for binding in block.bindings:
            if _calls(binding.value, "relax.call_tir"):
                held = self._updated(binding, block)
                if held is not None and self._later(binding, held):
                    late.append(binding)
                    continue
            now.append(self._viewed(binding))
        return relax.DataflowBlock(merged(self.builder, [*now, *late], self.updates))

    def _updated(self, binding: relax.VarBinding, block: relax.DataflowBlock) -> relax.Var | None:
        """The input that the binding can update in place, which is noted; None if there is none."""
        call = binding.value
        func = self.mod[call.args[0]]
        for position, arg in enumerate(call.args[1].fields):
            held = self.holds.get(arg)
            if held is None or held in self.taken:
                continue
            if not tvm_ffi.structural_equal(arg.ty, binding.var.ty):
                continue
            try:
                self._check_order(binding, block, held)
                update_in_place(func, [func.params[position]])
            except UnmappedError as reason:
                self.builder.update_func(call.args[0], func.with_attr(KEPT, str(reason)))
                continue
            self.taken.add(held)
            same = frozenset(var for var, root in self.holds.items() if root is held)
            self.updates[binding.var] = Update(binding, arg, same)
            return held
        return None

    def _later(self, binding: relax.VarBinding, held: relax.Var) -> list[relax.Var]:
        """Who reads the input after the binding."""
        return [
            b.var
            for b in self.bindings[self.order[binding.var] + 1 :]
            if b.var not in self.holds and any(self.holds.get(v) is held for v in reads(b.value))
        ]

    def _check_order(
        self, binding: relax.VarBinding, block: relax.DataflowBlock, held: relax.Var
    ) -> None:
        """Raises UnmappedError if the update cannot come after all who read the input."""
        later = self._later(binding, held)
        if not {b.var for b in block.bindings}.issuperset(later):
            raise UnmappedError("the input is read after the update")
        if later and any(binding.var in reads(b.value) for b in block.bindings):
            raise UnmappedError("both the input and its update are read")
        if later and any(self.holds.get(v, held) is not held for v in reads(binding.value)):
            raise UnmappedError("at the end, what else it reads may be updated too")

    def _viewed(self, binding: relax.VarBinding) -> relax.VarBinding:
        """What only reshapes an update is a view of it, be it a result: the caller knows."""
        call = binding.value
        if not (_calls(call, "relax.call_tir") and self.mod[call.args[0]].attrs.get(VIEW, 0)):
            return binding
        (source,) = call.args[1].fields[:1]
        if source not in self.updates:
            return binding
        made = self.builder.normalize(reshape(source, binding.var.ty.shape))
        return relax.VarBinding(binding.var, made)


def _calls(value: Any, name: str) -> bool:
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") == name
