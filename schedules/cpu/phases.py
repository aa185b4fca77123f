"""Kernels that interleave several sums, such as transposed convolutions: one kernel for each sum.

    out[Y] = f(sum0[Y // s] if Y % s == 0 else sum1[Y // s] if Y % s == 1 ..)

Along Y = s y + phase, with the phase a number, the conditions are decided and one sum is left:

    out[s y + phase] = f(sum_phase[y])

which is a kernel like any other, that writes every s-th element.
"""

from __future__ import annotations

from itertools import product

from tvm import tirx
from tvm.ir import Call, Var

from ..kernel.analysis import Block, View, collect, constant
from ..kernel.view import view
from ..rule import Declined, Kernel
from .parts import Parts, Slice, Split


class Phases(Parts):
    """Sums that are interleaved along some axes."""

    name = "phases"

    def apart(self, kernel: Kernel) -> tuple[Kernel, ...] | Declined:
        seen = view(kernel.func)
        if isinstance(seen, Declined):
            return seen
        head, strides = _interleaving(seen)
        if head is None:
            return Declined("it does not interleave sums")
        split = Split.after(seen, head, strides)
        if isinstance(split, Declined):
            return split
        slices = [[Slice(phase, s) for phase in range(s)] for s in strides.values()]
        return tuple(
            split.kernel(kernel, number, dict(zip(strides, one)))
            for number, one in enumerate(product(*slices))
        )


def _interleaving(seen: View) -> tuple[Block | None, dict[Var, int]]:
    """The block that interleaves sums, and how many along which of its axes."""
    for block in seen.blocks:
        if not block.is_reduction and len(block.stores) == 1:
            reads = {load.source for load in block.loads}
            if any(b.stores[0].buffer in reads for b in seen.reductions):
                strides = _strides(block)
                if strides:
                    return block, strides
    return None, {}


def _strides(block: Block) -> dict[Var, int]:
    """{axis: s} for every axis of a block whose value depends on ``axis % s == phase``."""
    own = {axis.var for axis in block.axes}
    found: dict[Var, int] = {}
    for call in collect(block.stores[0].value, Call):
        if getattr(call.op, "name", "") != "prim.if_then_else":
            continue
        for node in collect(call.args[0], tirx.FloorMod):
            stride = constant(node.b)
            if node.a in own and stride and found.setdefault(node.a, stride) != stride:
                return {}
    return found
