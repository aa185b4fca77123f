"""Kernels store for the one that reads them: through its map, with its arithmetic.

    t = call_tir(kernel, (x, w))
    y = call_tir(reader, (t, r))      becomes     y = call_tir(kernel', (x, w, r))
                                                  kernel' = { blocks of kernel;  those of reader }

where nobody else reads `t` and the reader computes element by element: the schedule rule of the
kernel takes its blocks into the store stage, and `t` is never in memory. FuseOps does this as long
as nothing is moved in between; here `t` may be reshaped or turned, and the price decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, s_tir, tirx
from tvm.ir import GenericConst

from tvmext.frontends.dims import Dim

from .check import KEPT, PRICED
from .emit import VIEW
from .join import reads
from .joining import BLOCKED, Reading, fused, is_tensor
from .ranges import ranges
from .strategy import MUCH

SPATIAL = ("elementwise",)
"""Rules of kernels without a reduction."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A kernel that stores for its reader: what that costs and what both cost apart, in cycles,

    numbers or arrays over the sizes of free dims.
    """

    reader: relax.VarBinding
    func: tirx.PrimFunc
    args: tuple[relax.Expr, ...]
    cycles: Any
    apart: Any

    def pays(self, weights: np.ndarray) -> bool:
        """Whether that is cheaper, all sizes by their weights, and at none much dearer."""
        ratio = np.broadcast_to(self.cycles / self.apart, weights.shape)
        return bool(weights @ ratio < 1 and ratio.max() <= MUCH)


@tvm.transform.module_pass(opt_level=0, name="JoinStores")
class JoinStores:
    """Join kernels with the movement of what they make: where that is cheaper, or always.

    With `memory`, whatever the kernels' rules take is joined, because it saves a tensor.
    """

    def __init__(
        self, reading: Reading, memory: bool = False, dims: Mapping[str, Dim] | None = None
    ) -> None:
        self.reading = reading
        self.memory = memory
        self.ranges = ranges(dims or {})

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        builder = relax.BlockBuilder(mod)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                builder.update_func(var, self._joined(builder, mod, func))
        return relax.transform.DeadCodeElimination()(builder.get())

    def _joined(
        self, builder: relax.BlockBuilder, mod: tvm.IRModule, func: relax.Function
    ) -> relax.Function:
        blocks = []
        pairs = _Pairs(mod, func, self.reading, self.ranges.sizes)
        for block in func.body.blocks:
            bindings = []
            for binding in block.bindings:
                found = pairs.candidate(binding) if _calls(binding.value) else None
                if isinstance(found, str):
                    callee = binding.value.args[0]
                    builder.update_func(callee, mod[callee].with_attr(KEPT, found))
                elif found is not None and (found.pays(self.ranges.weights) or self.memory):
                    callee = builder.add_func(found.func, binding.value.args[0].name_hint)
                    call = relax.call_tir(callee, relax.Tuple(found.args), binding.var.ty)
                    binding = relax.VarBinding(binding.var, builder.normalize(call))
                elif found is not None:
                    weights = self.ranges.weights
                    apart, joint = (float((weights * c).sum()) for c in (found.apart, found.cycles))
                    reason = f"priced: {apart:.0f} cycles apart, {joint:.0f} joined"
                    callee = binding.value.args[0]
                    builder.update_func(callee, mod[callee].with_attr(KEPT, reason))
                bindings.append(binding)
            blocks.append(type(block)(bindings))
        body = relax.SeqExpr(blocks, func.body.body)
        return relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs)


class _Pairs:
    """The kernels of a function that one other kernel reads, and that kernel."""

    def __init__(
        self,
        mod: tvm.IRModule,
        func: relax.Function,
        reading: Reading,
        sizes: Mapping[str, Any],
    ) -> None:
        self.mod = mod
        self.reading = reading
        self.sizes = sizes
        bindings = [b for block in func.body.blocks for b in block.bindings]
        self.calls = {b.var: b for b in bindings if _calls(b.value)}
        self.known: dict[tvm.ir.GlobalVar, tuple[str, Any]] = {}
        self.readers: dict[relax.Var, int] = {}
        for binding in bindings:
            for var in set(reads(binding.value)):
                self.readers[var] = self.readers.get(var, 0) + 1
        for var in reads(func.body.body):
            self.readers[var] = self.readers.get(var, 0) + 1

    def candidate(self, reader: relax.VarBinding) -> Candidate | str | None:
        """The reader joined with the kernel before it, or why that is not possible."""
        if self._is_view(reader) or _reduces(self.mod[reader.value.args[0]]):
            return None
        for arg in reader.value.args[1].fields:
            chain = self._chain(arg)
            if not chain:
                continue
            (before, price), (own, cycles) = map(self._read, (chain[0].value, reader.value))
            if own not in SPATIAL or before in (*SPATIAL, ""):
                continue
            func, args = self._together([*chain, reader])
            after, joined = self._price(func, args)
            if after != before and (before, after) not in BLOCKED:
                faster = before.startswith(f"{after}, ")  # by another method, such as Winograd's
                return (
                    f"{f'{PRICED}: ' * faster}'{before}' does not store through it, '{after}' would"
                )
            return Candidate(reader, func, args, joined, price + cycles)
        return None

    def _chain(self, arg: relax.Expr) -> list[relax.VarBinding]:
        """The kernel that makes an argument which nobody else reads, and views of it."""
        chain: list[relax.VarBinding] = []
        while isinstance(arg, relax.DataflowVar) and self.readers[arg] == 1 and arg in self.calls:
            chain.insert(0, self.calls[arg])
            if not self._is_view(self.calls[arg]):
                return chain
            arg = self.calls[arg].value.args[1].fields[0]
        return []

    def _is_view(self, binding: relax.VarBinding) -> bool:
        return bool(self.mod[binding.value.args[0]].attrs.get(VIEW, 0))

    def _read(self, call: relax.Call) -> tuple[str, Any]:
        callee, args = call.args[0], call.args[1].fields
        if callee not in self.known:
            self.known[callee] = self._price(self.mod[callee], args)
        return self.known[callee]

    def _price(self, func: tirx.PrimFunc, args: Iterable[relax.Expr]) -> tuple[str, Any]:
        weights = (k for k, arg in enumerate(args) if isinstance(arg, GenericConst))
        return self.reading(func, frozenset(weights), self.sizes)

    def _together(
        self, bindings: list[relax.VarBinding]
    ) -> tuple[tirx.PrimFunc, tuple[relax.Expr, ...]]:
        """The kernels of two calls, one of which reads the other, as one."""
        made = {binding.var for binding in bindings}
        args = (arg for b in bindings for arg in b.value.args[1].fields if is_tensor(arg))
        outside: dict[relax.Expr, relax.Var] = {}
        for arg in args:
            if arg not in made and arg not in outside:
                outside[arg] = relax.Var(f"arg{len(outside)}", arg.ty)
        builder = relax.BlockBuilder()
        inside: dict[relax.Expr, relax.Var] = dict(outside)
        copies = []
        for binding in bindings:
            call = binding.value
            callee = builder.add_func(self.mod[call.args[0]], call.args[0].name_hint)
            fields = relax.Tuple([inside.get(arg, arg) for arg in call.args[1].fields])
            copy = relax.Call(call.op, [callee, fields, *call.args[2:]], call.attrs, call.ty_args)
            last = binding is bindings[-1]
            kind = relax.Var if last else relax.DataflowVar
            inside[binding.var] = kind(binding.var.name, binding.var.ty)
            copies.append(relax.VarBinding(inside[binding.var], copy))
        module, joint = fused(builder, copies, outside)
        back = dict(zip(module["main"].params, outside))
        used = tuple(back.get(arg, arg) for arg in joint.value.args[1].fields)
        return module[joint.value.args[0]], used


def _calls(value: Any) -> bool:
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.call_tir"


def _reduces(func: tirx.PrimFunc) -> bool:
    """Whether some block of a kernel has an axis that is not one of what it stores."""
    axes: list[tirx.IterVar] = []
    tvm_ffi.structural_walk(func.body, (s_tir.SBlock, lambda block: axes.extend(block.iter_vars)))
    return any(axis.iter_type != tirx.IterVar.DataPar for axis in axes)
