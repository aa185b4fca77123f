"""Two kernels, one of which reads what the other makes and nobody else reads, as one kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, s_tir, tirx
from tvm.ir import GenericConst

from .check import KEPT
from .emit import VIEW
from .join import reads
from .joining import Reading, bytes_of, fused, is_tensor
from .prims import Prims
from .ranges import Ranges
from .strategy import MUCH


@dataclass(frozen=True, eq=False)
class Candidate:
    """A kernel joined with its reader: what that costs and what both cost apart, in cycles,

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


Decide: TypeAlias = Callable[[relax.VarBinding], Candidate | str | None]
"""A reader joined with the kernel before it, or why not; None if there is nothing to say."""


class Pairs:
    """The kernels of a function that one other kernel reads, and that kernel."""

    def __init__(
        self,
        mod: tvm.IRModule,
        func: relax.Function,
        reading: Reading,
        over: Ranges,
    ) -> None:
        self.mod = mod
        self.reading = reading
        self.over = over
        self.prims = Prims()
        bindings = [b for block in func.body.blocks for b in block.bindings]
        self.calls = {b.var: b for b in bindings if calls_kernel(b.value)}
        self.known: dict[tvm.ir.GlobalVar, tuple[str, Any]] = {}
        self.places = {binding.var: place for place, binding in enumerate(bindings)}
        self.readers: dict[relax.Var, list[int]] = {}
        for place, binding in enumerate(bindings):
            for var in set(reads(binding.value)):
                self.readers.setdefault(var, []).append(place)
        for var in reads(func.body.body):
            self.readers.setdefault(var, []).append(len(bindings))

    def rewritten(
        self, builder: relax.BlockBuilder, func: relax.Function, decide: Decide
    ) -> relax.Function:
        """The function with those kernels joined for which `decide` has a candidate.

        The reasons that it gives for others are noted on their readers.
        """
        blocks = []
        for block in func.body.blocks:
            bindings = []
            for binding in block.bindings:
                found = decide(binding) if calls_kernel(binding.value) else None
                if isinstance(found, str):
                    callee = binding.value.args[0]
                    builder.update_func(callee, self.mod[callee].with_attr(KEPT, found))
                elif found is not None:
                    callee = builder.add_func(found.func, binding.value.args[0].name_hint)
                    call = relax.call_tir(callee, relax.Tuple(found.args), binding.var.ty)
                    binding = relax.VarBinding(binding.var, builder.normalize(call))
                bindings.append(binding)
            blocks.append(type(block)(bindings))
        body = relax.SeqExpr(blocks, func.body.body)
        return relax.Function(func.params, body, func.ret_ty, func.is_pure, func.attrs)

    def chain(self, arg: relax.Expr) -> list[relax.VarBinding]:
        """The kernel that makes an argument which nobody else reads, and views of it."""
        chain: list[relax.VarBinding] = []
        while (
            isinstance(arg, relax.DataflowVar) and len(self.readers[arg]) == 1 and arg in self.calls
        ):
            chain.insert(0, self.calls[arg])
            if not self.is_view(self.calls[arg]):
                return chain
            arg = self.calls[arg].value.args[1].fields[0]
        return []

    def is_view(self, binding: relax.VarBinding) -> bool:
        return bool(self.mod[binding.value.args[0]].attrs.get(VIEW, 0))

    def outlives(self, before: relax.VarBinding, reader: relax.VarBinding) -> bool:
        """Whether what a kernel reads and nobody needs until `reader` is more than what it makes.

        Joined, the two would take more memory than apart.
        """

        def size(var: relax.Var) -> int:
            return bytes_of(var.ty, self.prims, self.over.usual)

        read = {arg for arg in before.value.args[1].fields if arg in self.places}
        over = (var for var in read if max(self.readers[var]) < self.places[reader.var])
        return sum(map(size, over)) > size(before.var)

    def read(self, call: relax.Call) -> tuple[str, Any]:
        callee, args = call.args[0], call.args[1].fields
        if callee not in self.known:
            self.known[callee] = self.price(self.mod[callee], args)
        return self.known[callee]

    def price(self, func: tirx.PrimFunc, args: Iterable[relax.Expr]) -> tuple[str, Any]:
        weights = (k for k, arg in enumerate(args) if isinstance(arg, GenericConst))
        return self.reading(func, frozenset(weights), self.over.sizes)

    def together(
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


def joined(
    mod: tvm.IRModule,
    reading: Reading,
    over: Ranges,
    decide: Callable[[Pairs, relax.VarBinding], Candidate | str | None],
) -> tvm.IRModule:
    """The module with the pairs of every function joined as `decide` says; see `Decide`."""
    builder = relax.BlockBuilder(mod)
    for var, func in mod.functions_items():
        if isinstance(func, relax.Function):
            pairs = Pairs(mod, func, reading, over)
            builder.update_func(var, pairs.rewritten(builder, func, partial(decide, pairs)))
    return relax.transform.DeadCodeElimination()(builder.get())


def calls_kernel(value: Any) -> bool:
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.call_tir"


def reduces(func: tirx.PrimFunc) -> bool:
    """Whether some block of a kernel has an axis that is not one of what it stores."""
    axes: list[tirx.IterVar] = []
    tvm_ffi.structural_walk(func.body, (s_tir.SBlock, lambda block: axes.extend(block.iter_vars)))
    return any(axis.iter_type != tirx.IterVar.DataPar for axis in axes)
