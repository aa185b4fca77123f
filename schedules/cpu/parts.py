"""Kernels that are taken apart: each part fills its own slice of the outputs.

A part is a kernel like any other, over fewer elements, and is scheduled by the rule that takes it;
the parts run one after another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tvm_ffi
from tvm import s_tir, sym, tirx
from tvm.ir import Call, Expr, TensorLoad, Var

from tvmext.arch import CpuArch

from ..kernel.analysis import SPATIAL, Axis, Block, Store, View, analyzer, constant, substitute
from ..rule import Declined, Kernel, Layout, Rule, Scheduled


@dataclass(frozen=True)
class Part:
    """The rule that takes a part of a kernel, and what that rule needs."""

    rule: Rule
    kernel: Kernel
    workload: Any


@dataclass(frozen=True)
class Workload:
    """The parts of a kernel, and what they are called."""

    kind: str
    parts: tuple[Part, ...] = field(repr=False, compare=False)

    def __str__(self) -> str:
        told = ", ".join(str(part.workload) for part in self.parts)
        return f"{len(self.parts)} {self.kind}: {told}"


@dataclass(frozen=True)
class PartDecision:
    """The rule of one part and its decision."""

    rule: str
    decision: Any


class Parts(ABC):
    """What rules have in common whose kernels are taken apart.

    `rules` are those that a part may be left to, in the order in which they are asked.
    """

    name: str

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)

    def match(self, kernel: Kernel) -> Workload | Declined:
        apart = self.apart(kernel)
        if isinstance(apart, Declined):
            return apart
        parts = []
        for own in apart:
            part = self._part(own)
            if part is None:
                return Declined(f"no rule takes '{own.name}'")
            parts.append(part)
        return Workload(self.name, tuple(parts))

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

    @abstractmethod
    def apart(self, kernel: Kernel) -> tuple[Kernel, ...] | Declined:
        """The parts of a kernel, or why it has none."""

    def _part(self, kernel: Kernel) -> Part | None:
        for rule in self.rules:
            workload = rule.match(kernel)
            if not isinstance(workload, Declined):
                return Part(rule, kernel, workload)
        return None


@dataclass(frozen=True)
class Slice:
    """``start, start + step, ..`` of an axis: `extent` of them, or all that there are."""

    start: Expr | int
    step: int = 1
    extent: Expr | None = None

    def count(self, axis: Axis) -> Expr:
        """How many elements of `axis` it holds."""
        if self.extent is not None:
            return self.extent
        return sym.Analyzer().simplify((axis.extent + (self.step - 1 - self.start)) // self.step)


@dataclass(frozen=True, eq=False)
class Split:
    """Which axes of which blocks are cut.

    `axes` says for the axes of all blocks that follow which of the first one's they are.
    """

    view: View
    axes: dict[Var, Var]
    tail: tuple[Block, ...]

    @staticmethod
    def after(seen: View, head: Block, cut: Iterable[Var]) -> Split | Declined:
        """Follow some axes of a block through its consumers."""
        axes: dict[Var, Var] = {var: var for var in cut}
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
                        return Declined(f"'{block.name}' reads across parts")
            tail.append(block)
        written = {block.stores[0].buffer for block in tail}
        inner = {load.source for block in tail for load in block.loads} & written
        if inner & set(seen.buffers):
            return Declined("an output is read again")
        if any(_misplaced(block, axes) for block in tail):
            return Declined("a consumer computes with an index that is cut")
        return Split(seen, axes, tuple(tail))

    def kernel(self, kernel: Kernel, number: int, slices: Mapping[Var, Slice]) -> Kernel:
        """One part: `slices` has what is left of the first block's axes that are cut."""
        func = _function(self.view, self._blocks(slices))
        return replace(kernel, name=f"{kernel.name}_{number}", func=func)

    def _blocks(self, slices: Mapping[Var, Slice]) -> list[Block]:
        """The blocks of one part: what its sum needs, the sum, and what follows."""
        compact: dict[Var, Var] = {}
        part = [self._cut(block, slices, compact) for block in self.tail]
        if part[0].is_reduction and self.tail[0].stores[0].buffer in self.view.buffers:
            part.append(self._stored(part[0], slices))
        needed = {load.source for block in part for load in block.loads}
        before: list[Block] = []
        for block in reversed(self.view.blocks):
            if not any(block is b for b in self.tail) and block.stores[0].buffer in needed:
                needed |= {load.source for load in block.loads}
                before.insert(0, block)
        return [*before, *part]

    def _stored(self, part: Block, slices: Mapping[Var, Slice]) -> Block:
        """What puts the sums of a part where they belong in an output."""
        head, axes = self.tail[0], []
        here: dict[Var, Expr] = {}
        there: dict[Var, Expr] = {}
        for old, new in zip(head.axes, part.axes):
            if old.kind == SPATIAL:
                axes.append(Axis(Var(new.var.name, new.var.ty), new.extent, SPATIAL))
                cut = slices.get(old.var, Slice(0))
                here[new.var] = axes[-1].var
                there[old.var] = axes[-1].var * cut.step + cut.start
        held, wanted = part.stores[0], head.stores[0]
        value = tirx.BufferLoad(held.buffer, [substitute(i, here) for i in held.indices])
        where = tuple(substitute(i, there) for i in wanted.indices)
        return Block(f"{head.name}_stored", tuple(axes), (Store(wanted.buffer, where, value),))

    def _cut(self, block: Block, slices: Mapping[Var, Slice], compact: dict[Var, Var]) -> Block:
        """`block` over its slices; what only the kernel itself reads becomes smaller."""
        axes, values, small = [], {}, {}
        for axis in block.axes:
            root = self.axes.get(axis.var)
            if root is None:
                axes.append(axis)
                continue
            part = slices[root]
            own = Axis(Var(axis.var.name, axis.var.ty), part.count(axis), SPATIAL)
            axes.append(own)
            values[axis.var] = own.var * part.step + part.start
            small[axis.var] = own.var
        ana = analyzer(axes)
        store = block.stores[0]
        buffer = store.buffer
        indices = tuple(substitute(i, values) for i in store.indices)
        if buffer not in self.view.buffers or block.is_reduction:
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

        value = decided(store.value, values, ana)
        value = tvm_ffi.structural_map(value, (TensorLoad, load))
        stored = replace(store, buffer=buffer, indices=indices, value=value)
        return Block(block.name, tuple(axes), (stored,))


def decided(value: Expr, values: dict[Var, Expr], ana: sym.Analyzer) -> Expr:
    """`value` without the conditions that are known where `values` are put in for its axes."""

    def visit(call: Call) -> Expr:
        if getattr(call.op, "name", "") != "prim.if_then_else":
            return call
        known = constant(ana.simplify(substitute(call.args[0], values)))
        if known is None:
            return call
        return tvm_ffi.structural_map(call.args[1 if known else 2], (Call, visit), order="pre")

    return tvm_ffi.structural_map(value, (Call, visit), order="pre")


def _misplaced(block: Block, axes: dict[Var, Var]) -> bool:
    """Whether the block stores an interleaved axis in another way than as an index of its own."""
    split = {axis.var for axis in block.axes if axis.var in axes}
    plain = {i for i in block.stores[0].indices if isinstance(i, Var)}
    return not split <= plain


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
