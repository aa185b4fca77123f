"""One stage inside a row: its code at an index, its stores, its steps of a reduction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import BufferStore, ForKind, Stmt

from ..kernel.analysis import Axis, substitute
from ..kernel.loops import local, sequence
from ..kernel.stages import COMBINE, Point, Stage, Write
from .decision import StagePlan
from .math import approximate


@dataclass(eq=False)
class Inside:
    """A stage at a row: `rows` says what its row axes are, `inner` lists its other spatial axes.

    `kind` is that of the outermost loop. `buffers` collects what must be allocated around the code.
    """

    stage: Stage
    plan: StagePlan
    rows: dict[Var, Expr]
    inner: list[Axis]
    kind: ForKind = ForKind.SERIAL
    buffers: list[Var] = field(default_factory=list)

    def code(self, point: Point, values: dict[Var, Expr]) -> tuple[list[Stmt], list[Expr]]:
        """Statements that bind scalars, and the values, of a point at an index."""
        point = point.at(self.rows | values)
        binds: list[Stmt] = []

        def written_out(value: Expr) -> Expr:
            before, value = approximate(value)
            binds.extend(tirx.Bind(var, part) for var, part in before)
            return value

        for var, value in point.binds:
            code = written_out(value)
            binds.append(tirx.Bind(var, code))
        return binds, [written_out(value) for value in point.values]

    def indices(self, write: Write, values: dict[Var, Expr]) -> list[Expr]:
        """Where the stage stores, at an index."""
        return [substitute(index, self.rows | values) for index in write.indices]

    def store(self, write: Write, value: Expr, values: dict[Var, Expr]) -> Stmt:
        """One store of the stage, at an index."""
        return BufferStore(write.buffer, value, self.indices(write, values))

    def point(self, values: dict[Var, Expr], loaded: Sequence[tuple[Expr, Expr]] = ()) -> Stmt:
        """An elementwise stage at an index; `loaded` says what stands for some of its loads."""
        known = {tvm_ffi.StructuralKey(load): value for load, value in loaded}

        def visit(load: TensorLoad) -> Expr:
            return known.get(tvm_ffi.StructuralKey(load), load)

        code = self.stage.point.map(visit) if known else self.stage.point
        binds, results = self.code(code, values)
        stored = [self.store(w, r, values) for w, r in zip(self.stage.writes, results)]
        return sequence([*binds, *stored])

    def accumulators(self, width: int) -> list[Var]:
        """A buffer of `width` partial results for each result of a reduction."""
        found = [local((width,), w.buffer.ty.dtype, w.buffer.name) for w in self.stage.writes]
        self.buffers += found
        return found

    def start(self, accs: Sequence[Var], where: Expr) -> Stmt:
        """The accumulators' first contents."""
        return sequence(
            [BufferStore(acc, w.init, [where]) for acc, w in zip(accs, self.stage.writes)]
        )

    def step(self, accs: Sequence[Var], where: Expr, values: dict[Var, Expr]) -> Stmt:
        """Combine one more element into the accumulators at `where`."""
        binds, results = self.code(self.stage.point, values)
        own = {w.buffer: acc[where] for w, acc in zip(self.stage.writes, accs)}
        combined = [
            COMBINE[w.op](acc[where], value) if w.op else _replaced(value, own)
            for w, acc, value in zip(self.stage.writes, accs, results)
        ]
        if len(accs) > 1:
            # Every new value is made from the old ones of all.
            names = [Var(w.buffer.name, v.ty) for w, v in zip(self.stage.writes, combined)]
            binds += [tirx.Bind(name, value) for name, value in zip(names, combined)]
            combined = names
        stored = [BufferStore(acc, value, [where]) for acc, value in zip(accs, combined)]
        return sequence([*binds, *stored])

    def finish(self, results: Sequence[Expr], values: dict[Var, Expr]) -> Stmt:
        """Store what a reduction found, through its epilogue if it has one."""
        stage = self.stage
        if stage.epilogue is None:
            return sequence([self.store(w, r, values) for w, r in zip(stage.writes, results)])
        own = {w.buffer: r for w, r in zip(stage.writes, results)}
        binds, outs = self.code(stage.epilogue.point, values)
        binds = [tirx.Bind(bind.var, _replaced(bind.value, own)) for bind in binds]
        stored = [
            self.store(w, _replaced(out, own), values)
            for w, out in zip(stage.epilogue.writes, outs)
        ]
        return sequence([*binds, *stored])


def _replaced(expr: Expr, own: dict[Var, Expr]) -> Expr:
    """`expr` with loads of the reduction's own results replaced by what they are now."""
    return tvm_ffi.structural_map(expr, (TensorLoad, lambda load: own.get(load.source, load)))
