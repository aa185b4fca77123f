"""The steps of a recurrent network (recurrence.py): what runs for which sequences, and how.

A task is a group of sequences of one direction, or one of those that are left of the batch. Of
states that are long only the products are code of their own for either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.frontends.recurrence import Form, Steps, Unit, advance, kept, length_of

from ..kernel.analysis import constant
from ..kernel.choice import of_height
from ..kernel.emit import (
    PARALLEL,
    SERIAL,
    UNROLLED,
    Size,
    allocate,
    bind,
    block,
    ceildiv,
    index,
    known,
    loop,
    vectors,
    zeros,
)
from .math import approximate

LEAST_STEPS = 128
"""Units of a state below which the way of the sums through memory, which lets groups and single
sequences share their equations, costs too much: a fifth at 32 units, 4 % at 64, 2 % here."""


@dataclass(frozen=True)
class Decision:
    """A block of units, as `vectors` of `lanes`; sequences of a group; whether cores share."""

    lanes: int
    vectors: int
    sequences: int
    parallel: bool

    @property
    def units(self) -> int:
        return self.lanes * self.vectors


class Builder:
    """The kernel of one form under construction."""

    def __init__(self, form: Form, tensors: Mapping[str, Var], decision: Decision) -> None:
        self.form, self.tensors, self.decision = form, tensors, decision
        self.dtype = str(tensors["x"].dtype)
        self.steps, self.batch, directions, self.gates, hidden = map(known, tensors["x"].shape)
        self.directions, self.hidden = int(directions), int(hidden)
        self.blocks = int(ceildiv(self.hidden, decision.units))
        self.padded = self.blocks * decision.units

    def build(self) -> tirx.Stmt:
        """Each direction's groups of sequences, and one by one what is left of the batch."""
        each = self.decision.sequences
        groups = known(self.batch // each)
        rest = known(self.batch - groups * each)
        kind = PARALLEL if self.decision.parallel else SERIAL

        def every(count: Expr) -> tirx.Stmt:
            def task(number: Expr) -> tirx.Stmt:
                if self.directions == 1:
                    return one(index(0), number)
                return bind(
                    number // tirx.max(count, index(1)), lambda d: one(d, number - d * count), "d"
                )

            def one(d: Expr, number: Expr) -> tirx.Stmt:
                if constant(rest) == 0:
                    return bind(number * each, lambda row: self._direction(d, row, each), "row")
                return self._uneven(d, number, groups, count)

            return loop(known(count * self.directions), task, kind, "task")

        return bind(known(groups + rest), every, "tasks")

    def _uneven(self, d: Expr, number: Expr, groups: Size, count: Expr) -> tirx.Stmt:
        """The task `number` of `count`: whole groups are spread evenly among single sequences."""
        more = self.decision.sequences - 1

        def before(number: Expr) -> Expr:
            return number * groups // tirx.max(count, index(1))

        def task(done: Expr, through: Expr) -> tirx.Stmt:
            rows = (through - done) * more + 1
            return bind(
                number + done * more,
                lambda row: bind(rows, lambda rows: self._direction(d, row, rows), "rows"),
                "row",
            )

        return bind(
            before(number),
            lambda done: bind(before(number + 1), lambda through: task(done, through), "through"),
            "done",
        )

    def _direction(self, d: Expr, first: Expr, rows: Size) -> tirx.Stmt:
        """Sequences of direction `d`; directions whose functions differ have code of their own."""

        def group(rows: Size) -> tirx.Stmt:
            build = lambda which: _Group(self, d, which, first, rows).build()  # noqa: E731
            if len(set(self.form.functions)) == 1:
                return build(0)
            return tirx.IfThenElse(d.equal(index(0)), build(0), build(1))

        if isinstance(rows, int) or self.hidden >= LEAST_STEPS:
            return group(rows)
        return of_height((self.decision.sequences, 1), rows, group)


class _Group:
    """`rows` sequences of direction `d`, from `first` on: a whole group, or one if that is open.

    The functions are those of direction `which`.
    """

    def __init__(self, whole: Builder, d: Expr, which: int, first: Expr, rows: Size) -> None:
        self.form, self.tensors, self.decision = whole.form, whole.tensors, whole.decision
        self.hidden, self.padded, self.dtype = whole.hidden, whole.padded, whole.dtype
        self.blocks, self.steps = whole.blocks, index(whole.steps)
        self.gates, self.d, self.which = int(whole.gates), d, which
        self.first, self.rows = first, rows
        most = self.decision.sequences
        shape = [most, self.padded]
        self.own = {name: allocate(shape, self.dtype, name) for name in self.form.states}
        self.inputs = allocate([most, self.gates, self.padded], self.dtype, "inputs")
        self.extra = {
            name: allocate([parts, self.padded], self.dtype, name)
            for name, parts in (("inner", 1), ("peepholes", 3))
            if name in self.tensors
        }
        self.lengths = allocate([most], "int64", "lengths")

    def build(self) -> tirx.Stmt:
        buffers = [*self.own.values(), self.inputs, *self.extra.values(), self.lengths]
        return block(
            *(tirx.AllocBuffer(buffer) for buffer in buffers),
            self._lengths(),
            *map(self._clear, self.own.values()),
            None if self.form.from_zero else self._each(self._begin, self.hidden),
            *(self._copy_extra(name) for name in self.extra),
            loop(self.steps, self._step, name="step"),
            self._each(self._finish, self.hidden),
        )

    def _clear(self, state: Var) -> tirx.Stmt:
        return self._each(lambda m, j: zeros(state, [m, j]), self.padded)

    def _begin(self, m: Expr, j: Expr) -> tirx.Stmt:
        return block(*(
            tirx.BufferStore(self.own[own], self.tensors[start][self.d, self.first + m, j], [m, j])
            for own, start in self.form.starts.items()
        ))  # fmt: skip

    def _finish(self, m: Expr, j: Expr) -> tirx.Stmt:
        return block(*(
            tirx.BufferStore(
                self.tensors[end], self.own[own][m, j], [self.d, self.first + m, j]
            )
            for own, end in zip(self.form.starts, self.form.results[1:])
        ))  # fmt: skip

    def _lengths(self) -> tirx.Stmt | None:
        if "lengths" not in self.tensors:
            return None

        def put(m: Expr) -> tirx.Stmt:
            length = length_of(self.tensors, self.first + m, self.steps)
            return tirx.BufferStore(self.lengths, length, [m])

        return loop(self.rows, put)

    def _copy_extra(self, name: str) -> tirx.Stmt:
        source, target = self.tensors[name], self.extra[name]
        parts = known(target.shape[0])

        def put(p: Expr, j: Expr) -> tirx.Stmt:
            where = [self.d, p, j] if name == "peepholes" else [self.d, j]
            return tirx.BufferStore(target, tirx.BufferLoad(source, where), [p, j])

        return loop(parts, lambda p: self._along(self.hidden, lambda j: put(p, j)))

    def _each(self, body: Callable[[Expr, Expr], tirx.Stmt], extent: int) -> tirx.Stmt:
        return loop(self.rows, lambda m: self._along(extent, lambda j: body(m, j)), name="m")

    def _along(self, extent: int, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        """Units in vectors, those that are left one by one."""
        lanes = self.decision.lanes
        whole, rest = divmod(extent, lanes)
        return block(
            vectors(whole, lanes, body, unroll=False) if whole else None,
            loop(rest, lambda j: body(j + whole * lanes)) if rest else None,
        )

    # -------------------------------------------------------------- one step

    def _place(self, m: Expr) -> Steps:
        length = self.lengths[m] if "lengths" in self.tensors else None
        backward = self.form.backward
        differ = len(set(backward)) > 1
        there = self.d.equal(index(backward.index(True))) if differ else backward[0]
        return Steps(there, length, self.steps)

    def _step(self, step: Expr) -> tirx.Stmt:
        return block(
            loop(self.rows, lambda m: self._read(step, m), name="m"),
            *(
                loop(self.blocks, partial(self._block, number, step), name="block")
                for number in range(len(self.form.phases))
            ),
            loop(self.rows, lambda m: self._store(step, m), name="m"),
        )

    def _read(self, step: Expr, m: Expr) -> tirx.Stmt:
        """The inputs of a step, with room for whole vectors."""
        source = self.tensors["x"]

        def gate(time: Expr, g: Expr) -> tirx.Stmt:
            def put(j: Expr) -> tirx.Stmt:
                value = source[time, self.first + m, self.d, g, j]
                return tirx.BufferStore(self.inputs, value, [m, g, j])

            return self._along(self.hidden, put)

        return bind(
            self._place(m).time(step),
            lambda time: loop(self.gates, lambda g: gate(time, g)),
            "time",
        )

    def _store(self, step: Expr, m: Expr) -> tirx.Stmt:
        place, old, new = self._place(m), self.own["h"], self.own["next"]
        active = place.active(step)

        def put(time: Expr, j: Expr) -> tirx.Stmt:
            shown = kept(active, new[m, j], tirx.const(0, self.dtype))
            at = [time, self.d, self.first + m, j]
            return block(
                tirx.BufferStore(self.tensors["y"], shown, at),
                tirx.BufferStore(old, kept(active, new[m, j], old[m, j]), [m, j]),
            )

        return bind(
            place.time(step), lambda time: self._along(self.hidden, lambda j: put(time, j)), "time"
        )

    def _block(self, number: int, step: Expr, at: Expr) -> tirx.Stmt:
        """A block of units of all sequences of the group: products, then equations."""
        gates, wide = self.form.phases[number].gates, self.decision.vectors
        most = self.decision.sequences
        sums = allocate([most, len(gates), self.decision.units], self.dtype, "sums", "local")

        def unit(m: Expr) -> tirx.Stmt:
            return vectors(
                wide, self.decision.lanes, lambda u: self._unit(number, sums, (m, at, u), step)
            )

        if isinstance(self.rows, int):
            products = self._products(number, at, sums, self.rows)
        else:
            heights = (most, 1)
            products = of_height(heights, self.rows, lambda n: self._copied(number, at, sums, n))
        return block(tirx.AllocBuffer(sums), products, loop(self.rows, unit, name="m"))

    def _copied(self, number: int, at: Expr, sums: Var, rows: int) -> tirx.Stmt:
        """The products of `rows` sequences, in registers, and what puts them into `sums`."""
        own = allocate([rows, *sums.shape[1:]], self.dtype, "acc", "local")
        put = self._every(
            number, rows, lambda m, n, u: tirx.BufferStore(sums, own[m, n, u], [m, n, u])
        )
        return block(tirx.AllocBuffer(own), self._products(number, at, own, rows), put)

    def _products(self, number: int, at: Expr, sums: Var, rows: int) -> tirx.Stmt:
        """sums[m, n, u] of a block of units: states times weights."""
        phase = self.form.phases[number]
        source, weights = self.own[phase.source], self.tensors["r"]

        def add(k: Expr) -> tirx.Stmt:
            def put(m: Expr, n: int, u: Expr) -> tirx.Stmt:
                weight = weights[self.d, at, k, phase.gates[n], u]
                value = sums[m, n, u] + source[m, k] * weight
                return tirx.BufferStore(sums, value, [m, n, u])

            return self._every(number, rows, put)

        clear = self._every(number, rows, lambda m, n, u: zeros(sums, [m, index(n), u]))
        return block(clear, loop(self.hidden, add, name="k"))

    def _every(
        self, number: int, rows: int, body: Callable[[Expr, int, Expr], tirx.Stmt]
    ) -> tirx.Stmt:
        """``body(sequence, gate, unit)`` for the sums of a block."""
        gates = range(len(self.form.phases[number].gates))

        def gate(m: Expr, n: int) -> tirx.Stmt:
            wide, lanes = self.decision.vectors, self.decision.lanes
            return vectors(wide, lanes, lambda u: body(m, n, u))

        return loop(rows, lambda m: block(*(gate(m, n) for n in gates)), UNROLLED, "m")

    def _unit(self, number: int, sums: Var, at: tuple[Expr, Expr, Expr], step: Expr) -> tirx.Stmt:
        m, number_of_block, u = at
        j = number_of_block * self.decision.units + u
        phase, holes = self.form.phases[number], self.extra.get("peepholes")
        unit = Unit(
            inputs=lambda gate: self.inputs[m, gate, j],
            products={gate: sums[m, n, u] for n, gate in enumerate(phase.gates)},
            old={name: buffer[m, j] for name, buffer in self.own.items()},
            inner=self.extra["inner"][0, j] if "inner" in self.extra else None,
            peephole=None if holes is None else lambda which: holes[which, j],
        )
        new = advance(self.form, self.which, number, unit)
        if "cell" in new:
            new["cell"] = kept(self._place(m).active(step), new["cell"], unit.old["cell"])
        parts: list[tirx.Stmt] = []
        for var, value in unit.named:
            names, value = approximate(value)
            parts += [tirx.Bind(name, before) for name, before in names]
            parts.append(tirx.Bind(var, value))
        stores = [tirx.BufferStore(self.own[n], value, [m, j]) for n, value in new.items()]
        return block(*parts, *stores)
