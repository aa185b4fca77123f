"""Kernels that interleave several sums, such as transposed convolutions: one kernel for each sum.

    out[Y] = f(sum0[Y // s] if Y % s == 0 else sum1[Y // s] if Y % s == 1 ..)

Along Y = s y + phase, with the phase a number, the conditions are decided and one sum is left:

    out[s y + phase] = f(sum_phase[y])

which is a kernel like any other, that writes every s-th element. Each is scheduled by the rule that
takes it; they run one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import tvm_ffi
from tvm import s_tir, sym, tirx
from tvm.ir import Call, Expr, TensorLoad, Var

from tvmext.arch import CpuArch

from ..kernel.analysis import (
    SPATIAL,
    Axis,
    Block,
    Store,
    View,
    analyzer,
    collect,
    constant,
    substitute,
)
from ..kernel.view import view
from ..rule import Declined, Kernel, Layout, Rule, Scheduled


@dataclass(frozen=True)
class Part:
    """One phase: the rule that takes it, and what that rule needs."""

    rule: Rule
    kernel: Kernel
    workload: Any


@dataclass(frozen=True)
class Workload:
    """The phases of a kernel, each of which fills its part of the outputs."""

    parts: tuple[Part, ...] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{len(self.parts)} phases: " + ", ".join(str(part.workload) for part in self.parts)


@dataclass(frozen=True)
class PartDecision:
    """The rule of one phase and its decision."""

    rule: str
    decision: Any


class Phases:
    """Sums that are interleaved along some axes.

    `parts` are the rules that a phase may be left to: those that take kernels as equations.
    """

    name = "phases"

    def __init__(self, parts: Sequence[Rule]) -> None:
        self.parts = tuple(parts)

    def match(self, kernel: Kernel) -> Workload | Declined:
        seen = view(kernel.func)
        if isinstance(seen, Declined):
            return seen
        split = _Split.of(seen)
        if isinstance(split, Declined):
            return split
        parts = []
        for number, residues in enumerate(product(*map(range, split.strides.values()))):
            blocks = split.blocks(dict(zip(split.strides, residues)))
            own = replace(kernel, name=f"{kernel.name}_{number}", func=_function(seen, blocks))
            part = self._part(own)
            if part is None:
                return Declined(f"no rule takes phase {residues}")
            parts.append(part)
        return Workload(tuple(parts))

    def choose(self, workload: Workload, arch: CpuArch) -> tuple[PartDecision, ...]:
        return tuple(
            PartDecision(part.rule.name, part.rule.choose(part.workload, arch))
            for part in workload.parts
        )

    def apply(
        self, kernel: Kernel, workload: Workload, decision: tuple[PartDecision, ...], arch: CpuArch
    ) -> Scheduled:
        params = list(kernel.func.params)
        layouts: dict[int, Layout] = {}
        done = []
        for part, own in zip(workload.parts, decision):
            result = part.rule.apply(part.kernel, part.workload, own.decision, arch)
            for position, layout in result.layouts.items():
                params[position] = result.func.params[position]
                layouts[position] = layout
            done.append(result.func)
        bodies = [substitute(func.body, dict(zip(func.params, params))) for func in done]
        body = tirx.SeqStmt(bodies)
        return Scheduled(
            tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs), layouts
        )

    def _part(self, kernel: Kernel) -> Part | None:
        for rule in self.parts:
            workload = rule.match(kernel)
            if not isinstance(workload, Declined):
                return Part(rule, kernel, workload)
        return None


@dataclass(frozen=True, eq=False)
class _Split:
    """Which axes of which blocks are cut into phases.

    `strides` has the number of phases for each axis of the block that interleaves. `axes` says for
    the axes of all blocks that follow which of those they are.
    """

    view: View
    strides: dict[Var, int]
    axes: dict[Var, Var]
    tail: tuple[Block, ...]

    @staticmethod
    def of(seen: View) -> _Split | Declined:
        for block in seen.blocks:
            if not block.is_reduction and len(block.stores) == 1:
                strides = _strides(block)
                reads = {load.source for load in block.loads}
                sums = [b for b in seen.reductions if b.stores[0].buffer in reads]
                if strides and sums:
                    return _Split._after(seen, block, strides)
        return Declined("it does not interleave sums")

    @staticmethod
    def _after(seen: View, head: Block, strides: dict[Var, int]) -> _Split | Declined:
        """Follow the interleaved axes through the consumers of `head`."""
        axes: dict[Var, Var] = {var: var for var in strides}
        tail = [head]
        for block in seen.blocks:
            before = {b.stores[0].buffer: b.stores[0] for b in tail}
            loads = [load for load in block.loads if load.source in before]
            if block is head or not loads:
                continue
            if block.is_reduction or len(block.stores) != 1:
                return Declined(f"'{block.name}' is not an elementwise consumer")
            for load in loads:
                for own, at in zip(before[load.source].indices, load.indices):
                    if not isinstance(own, Var) or own not in axes:
                        continue
                    if not isinstance(at, Var) or not axes.setdefault(at, axes[own]).same_as(
                        axes[own]
                    ):
                        return Declined(f"'{block.name}' reads across phases")
            tail.append(block)
        written = {block.stores[0].buffer for block in tail}
        inner = {load.source for block in tail for load in block.loads} & written
        if inner & set(seen.buffers):
            return Declined("an output is read again")
        if any(_misplaced(block, axes) for block in tail):
            return Declined("a consumer computes with an interleaved index")
        return _Split(seen, strides, axes, tuple(tail))

    def blocks(self, residues: dict[Var, int]) -> list[Block]:
        """The blocks of one phase: what its sum needs, the sum, and what follows."""
        compact: dict[Var, Var] = {}
        phase = [self._phase(block, residues, compact) for block in self.tail]
        needed = {load.source for block in phase for load in block.loads}
        before: list[Block] = []
        for block in reversed(self.view.blocks):
            if not any(block is b for b in self.tail) and block.stores[0].buffer in needed:
                needed |= {load.source for load in block.loads}
                before.insert(0, block)
        return [*before, *phase]

    def _phase(self, block: Block, residues: dict[Var, int], compact: dict[Var, Var]) -> Block:
        """`block` at every stride-th index; what only the kernel itself reads becomes smaller."""
        simplify = sym.Analyzer().simplify
        axes, values, small = [], {}, {}
        for axis in block.axes:
            root = self.axes.get(axis.var)
            if root is None:
                axes.append(axis)
                continue
            stride, residue = self.strides[root], residues[root]
            extent = simplify((axis.extent + (stride - 1 - residue)) // stride)
            own = Axis(Var(axis.var.name, axis.var.ty), extent, SPATIAL)
            axes.append(own)
            values[axis.var] = own.var * stride + residue
            small[axis.var] = own.var
        ana = analyzer(axes)
        store = block.stores[0]
        buffer, indices = store.buffer, tuple(substitute(i, values) for i in store.indices)
        if buffer not in self.view.buffers:
            indices = tuple(substitute(i, small) for i in store.indices)
            extents = {axis.var: axis.extent for axis in axes}
            shape = [
                extents[i] if isinstance(i, Var) and i in small.values() else n
                for i, n in zip(indices, buffer.shape)
            ]
            compact[buffer] = tirx.decl_buffer(shape, str(buffer.dtype), buffer.name)
            buffer = compact[buffer]

        def load(load: TensorLoad) -> Expr:
            if load.source in compact:
                at = [substitute(i, small) for i in load.indices]
                return tirx.BufferLoad(compact[load.source], at)
            return tirx.BufferLoad(
                load.source, [ana.simplify(substitute(i, values)) for i in load.indices]
            )

        value = _decided(block, values, ana)
        value = tvm_ffi.structural_map(value, (TensorLoad, load))
        return Block(block.name, tuple(axes), (Store(buffer, indices, value),))


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


def _misplaced(block: Block, axes: dict[Var, Var]) -> bool:
    """Whether the block stores an interleaved axis in another way than as an index of its own."""
    split = {axis.var for axis in block.axes if axis.var in axes}
    plain = {i for i in block.stores[0].indices if isinstance(i, Var)}
    return not split <= plain


def _decided(block: Block, values: dict[Var, Expr], ana: sym.Analyzer) -> Expr:
    """The block's value with the conditions that the phase decides."""

    def visit(call: Call) -> Expr:
        if getattr(call.op, "name", "") != "prim.if_then_else":
            return call
        known = constant(ana.simplify(substitute(call.args[0], values)))
        if known is None:
            return call
        return tvm_ffi.structural_map(call.args[1 if known else 2], (Call, visit), order="pre")

    return tvm_ffi.structural_map(block.stores[0].value, (Call, visit), order="pre")


def _function(seen: View, blocks: Sequence[Block]) -> tirx.PrimFunc:
    """Blocks as a function with the parameters of the kernel they are a part of."""
    own = {store.buffer for block in blocks for store in block.stores} - set(seen.buffers)
    body = (
        tirx.SeqStmt([_loops(block) for block in blocks]) if len(blocks) > 1 else _loops(blocks[0])
    )
    buffers = sorted(own, key=lambda buffer: buffer.name)
    root = s_tir.SBlock([], [], [], "root", body, None, buffers)
    return tirx.PrimFunc(
        seen.func.params, s_tir.SBlockRealize([], True, root), seen.func.ret_type, seen.func.attrs
    )


def _loops(block: Block) -> tirx.Stmt:
    kinds = {True: tirx.IterVar.DataPar, False: tirx.IterVar.CommReduce}
    loops = [Var(axis.var.name, axis.var.ty) for axis in block.axes]
    variables = [
        tirx.IterVar((0, axis.extent), axis.var, kinds[axis.kind == SPATIAL]) for axis in block.axes
    ]
    stores = [tirx.BufferStore(s.buffer, s.value, list(s.indices)) for s in block.stores]
    inits = [
        tirx.BufferStore(s.buffer, s.init, list(s.indices))
        for s in block.stores
        if s.init is not None
    ]
    one = lambda stmts: stmts[0] if len(stmts) == 1 else tirx.SeqStmt(stmts)  # noqa: E731
    inner = s_tir.SBlock(variables, [], [], block.name, one(stores), one(inits) if inits else None)
    code: tirx.Stmt = s_tir.SBlockRealize(loops, True, inner)
    for var, axis in reversed(list(zip(loops, block.axes))):
        code = tirx.For(var, tirx.const(0, "int64"), axis.extent, tirx.ForKind.SERIAL, code)
    return code
