"""Recurrent networks: all steps of LSTM, GRU and RNN in one kernel (frontends/recurrence.py).

    for direction, some sequences of the batch in parallel:
        for step:
            for block of units:                       gates x vectors x sequences in registers
                for k:  sums += state[k] * weights[block, k]
                equations of the cell
            store the new state

The weights are packed in the order in which a step reads them, ``[block, k, gate, unit]``, and stay
in the cache from step to step. Sequences are independent, so one launch serves all steps. What
remains of the batch after whole groups of sequences runs one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import CpuArch
from tvmext.frontends.recurrence import FORM, Form, Steps, Unit, advance, kept, length_of

from ..kernel.analysis import constant
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
from ..rule import Declined, Kernel, Layout, Scheduled
from .math import approximate
from .plan import LAUNCH_NS, UNKNOWN_DIM

MOST_SEQUENCES = 4
"""Sequences of a group: beyond, the weights are no longer what a step waits for."""
LATENCY = 4
"""Cycles of an FMA on the cores we know: sums in flight for each unit."""
SPARE = 4
"""Registers for what the sums are made of."""


@dataclass(frozen=True)
class Workload:
    """Sizes are None when they are known at run time only; `weights` is a parameter or None."""

    kind: str
    dtype: str
    directions: int
    batch: int | None
    steps: int | None
    hidden: int
    packed: bool
    form: Form = field(repr=False, compare=False)
    tensors: Mapping[str, Var] = field(repr=False, compare=False)


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


class Recurrence:
    """LSTM, GRU and RNN."""

    name = "recurrence"
    takes_loaders = False

    def match(self, kernel: Kernel) -> Workload | Declined:
        text = (kernel.func.attrs or {}).get(FORM)
        if text is None:
            return Declined("it is no recurrent cell")
        form = Form.from_json(str(text))
        names = (*form.operands, *form.results)
        tensors = dict(zip(names, kernel.func.params))
        steps, batch, directions, _, hidden = (constant(n) for n in tensors["x"].shape)
        if hidden is None or directions is None or len(tensors) < len(names):
            return Declined("the sizes of the cell are not known")
        packed = form.operands.index("r") in kernel.constant_args
        dtype = str(tensors["x"].dtype)
        return Workload(form.kind, dtype, directions, batch, steps, hidden, packed, form, tensors)

    def choose(self, workload: Workload, arch: CpuArch) -> Decision:
        gates = max(len(phase.gates) for phase in workload.form.phases)
        lanes = arch.vector_lanes(workload.dtype)
        room = max(1, arch.vector_registers - SPARE)
        wanted = min(-(-LATENCY * arch.fma_units // gates), -(-workload.hidden // lanes))
        across = max(1, min(wanted, room // gates))
        most = MOST_SEQUENCES if workload.batch is None else workload.batch
        sequences = max(1, min(most, MOST_SEQUENCES, room // (gates * across)))
        steps, batch = workload.steps or UNKNOWN_DIM, workload.batch or UNKNOWN_DIM
        work = steps * workload.hidden**2 * gates // lanes
        many = batch * workload.directions > 1
        return Decision(lanes, across, sequences, arch.cores > 1 and many and work > 4 * LAUNCH_NS)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch
    ) -> Scheduled:
        number = workload.form.operands.index("r")
        old = workload.tensors["r"]
        laid = _packed(old, workload, decision)
        tensors = {**workload.tensors, "r": laid}
        params, layouts = list(kernel.func.params), {}
        body = _Builder(workload.form, tensors, decision).build()
        if workload.packed:
            params[number] = laid
            layouts[number] = _layout(laid, decision)
        else:
            body = block(tirx.AllocBuffer(laid), _pack(old, laid, decision), body)
        func = tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs)
        return Scheduled(func, layouts)


def _packed(weights: Var, workload: Workload, decision: Decision) -> Var:
    """The buffer of the weights, [direction, block, k, gate, unit]."""
    directions, gates, hidden, _ = (known(n) for n in weights.shape)
    blocks = ceildiv(hidden, decision.units)
    shape = [directions, blocks, hidden, gates, decision.units]
    return tirx.decl_buffer([index(n) for n in shape], workload.dtype, "packed")


def _layout(laid: Var, decision: Decision) -> Layout:
    d, g, j, k = (Var(name, "int64") for name in "dgjk")
    final = [d, j // decision.units, k, g, j % decision.units]
    shape = tuple(constant(n) or 0 for n in laid.shape)
    return Layout(tirx.IndexMap([d, g, j, k], final, None), shape)


def _pack(old: Var, laid: Var, decision: Decision) -> tirx.Stmt:
    """Weights that are inputs of the network are packed by every run; units beyond repeat one."""
    directions, blocks, hidden, gates, units = (known(n) for n in laid.shape)

    def line(d: Expr, b: Expr, k: Expr) -> tirx.Stmt:
        def put(g: Expr, u: Expr) -> tirx.Stmt:
            unit = tirx.min(b * units + u, index(hidden) - 1)
            return tirx.BufferStore(laid, old[d, g, unit, k], [d, b, k, g, u])

        return loop(gates, lambda g: loop(units, lambda u: put(g, u)))

    return loop(directions, lambda d: loop(blocks, lambda b: loop(hidden, lambda k: line(d, b, k))))


class _Builder:
    def __init__(self, form: Form, tensors: Mapping[str, Var], decision: Decision) -> None:
        self.form, self.tensors, self.decision = form, tensors, decision
        self.dtype = str(tensors["x"].dtype)
        self.steps, self.batch, directions, self.gates, hidden = map(known, tensors["x"].shape)
        self.directions, self.hidden = int(directions), int(hidden)
        self.blocks = int(ceildiv(self.hidden, decision.units))
        self.padded = self.blocks * decision.units

    def build(self) -> tirx.Stmt:
        """Groups of sequences, then what is left of the batch, one by one."""
        rows = self.decision.sequences
        groups = known(self.batch // rows)
        rest = known(self.batch - groups * rows)

        def launch(count: Size, task: Callable[[int, Expr], tirx.Stmt], name: str) -> tirx.Stmt:
            total = known(count * self.directions)
            kind = PARALLEL if self.decision.parallel else SERIAL
            return loop(total, lambda i: self._direction(i, task), kind, name)

        parts = [launch(groups, lambda d, q: self._sequences(d, q * rows, rows), "group")]
        if constant(rest) != 0:
            first = groups * rows
            parts.append(launch(rest, lambda d, q: self._sequences(d, q + first, 1), "one"))
        return block(*parts)

    def _direction(self, task: Expr, run: Callable[[int, Expr], tirx.Stmt]) -> tirx.Stmt:
        """Directions may differ in their functions, so each has code of its own."""
        if self.directions == 1:
            return run(0, task)
        which, number = task % self.directions, task // self.directions
        return tirx.IfThenElse(which.equal(index(0)), run(0, number), run(1, number))

    def _sequences(self, d: int, first: Expr, rows: int) -> tirx.Stmt:
        return bind(first, lambda row: _Group(self, d, row, rows).build(), "row")


class _Group:
    """`rows` sequences of one direction, from `first` on."""

    def __init__(self, whole: _Builder, d: int, first: Expr, rows: int) -> None:
        self.form, self.tensors, self.decision = whole.form, whole.tensors, whole.decision
        self.hidden, self.padded, self.dtype = whole.hidden, whole.padded, whole.dtype
        self.blocks, self.steps = whole.blocks, index(whole.steps)
        self.gates, self.d, self.first, self.rows = int(whole.gates), d, first, rows
        shape = [rows, self.padded]
        self.own = {name: allocate(shape, self.dtype, name) for name in self.form.states}
        self.inputs = allocate([rows, self.gates, self.padded], self.dtype, "inputs")
        self.extra = {
            name: allocate([parts, self.padded], self.dtype, name)
            for name, parts in (("inner", 1), ("peepholes", 3))
            if name in self.tensors
        }
        self.lengths = allocate([rows], "int64", "lengths")

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
                self.tensors[end], self.own[own][m, j], [index(self.d), self.first + m, j]
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
            where = [index(self.d), p, j] if name == "peepholes" else [index(self.d), j]
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
        return Steps(self.form.backward[self.d], length, self.steps)

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
            at = [time, index(self.d), self.first + m, j]
            return block(
                tirx.BufferStore(self.tensors["y"], shown, at),
                tirx.BufferStore(old, kept(active, new[m, j], old[m, j]), [m, j]),
            )

        return bind(
            place.time(step), lambda time: self._along(self.hidden, lambda j: put(time, j)), "time"
        )

    def _block(self, number: int, step: Expr, at: Expr) -> tirx.Stmt:
        """A block of units of all sequences of the group: products, then equations."""
        phase, wide = self.form.phases[number], self.decision.vectors
        shape = [self.rows, len(phase.gates), self.decision.units]
        sums = allocate(shape, self.dtype, "sums", "local")
        source, weights = self.own[phase.source], self.tensors["r"]

        def every(body: Callable[[Expr, int, Expr], tirx.Stmt]) -> tirx.Stmt:
            def gate(m: Expr, n: int) -> tirx.Stmt:
                return vectors(wide, self.decision.lanes, lambda u: body(m, n, u))

            return loop(
                self.rows,
                lambda m: block(*(gate(m, n) for n in range(len(phase.gates)))),
                UNROLLED,
                "m",
            )

        def add(k: Expr) -> tirx.Stmt:
            def put(m: Expr, n: int, u: Expr) -> tirx.Stmt:
                weight = weights[self.d, at, k, phase.gates[n], u]
                value = sums[m, n, u] + source[m, k] * weight
                return tirx.BufferStore(sums, value, [m, n, u])

            return every(put)

        def clear(m: Expr, n: int, u: Expr) -> tirx.Stmt:
            return zeros(sums, [m, index(n), u])

        def unit(m: Expr) -> tirx.Stmt:
            return vectors(
                wide, self.decision.lanes, lambda u: self._unit(number, sums, (m, at, u), step)
            )

        return block(
            tirx.AllocBuffer(sums),
            every(clear),
            loop(self.hidden, add, name="k"),
            loop(self.rows, unit, name="m"),
        )

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
        new = advance(self.form, self.d, number, unit)
        if "cell" in new:
            new["cell"] = kept(self._place(m).active(step), new["cell"], unit.old["cell"])
        parts: list[tirx.Stmt] = []
        for var, value in unit.named:
            names, value = approximate(value)
            parts += [tirx.Bind(name, before) for name, before in names]
            parts.append(tirx.Bind(var, value))
        stores = [tirx.BufferStore(self.own[n], value, [m, j]) for n, value in new.items()]
        return block(*parts, *stores)
