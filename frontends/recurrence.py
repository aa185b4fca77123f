"""Recurrent networks: the equations of a cell, and a plain kernel that runs all steps of one.

    x[t, b, d, g, j]   what the inputs give to unit j of gate g, biases included: one product for
                       all steps, before the kernel
    r[d, g, j, k]      weights of the state;   h0, c0 [d, b, j] initial states
    y[t, d, b, j]      the state after each step;   hn, cn [d, b, j] final states

Initial states that are zero are no operands. Further operands where `Form` says so: `inner` [d, j],
the bias that a GRU's reset gate applies to; `peepholes` [d, p, j]; `lengths` [b], the steps of each
sequence. Steps beyond them give zeros and leave the state alone; a backward direction begins at the
last of them. Equations and order of gates are those of ONNX. Schedule rules know the kernel by its
attribute `FORM` and write it anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tvm import tirx
from tvm.ir import Expr, PrimType, Var
from tvm.tirx import PrimFunc

FORM = "tvmext.recurrence"
"""Attribute of the kernel: its `Form`, as JSON."""

OPAQUE = 8  # relax.OpPatternKind: neither fused into nor out of

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class Activation:
    """A function of ONNX's list, by its name in lower case."""

    name: str
    alpha: float
    beta: float


@dataclass(frozen=True)
class Form:
    """A cell: per direction its functions, and whether it runs backward."""

    kind: str
    functions: tuple[tuple[Activation, ...], ...]
    backward: tuple[bool, ...]
    clip: float | None = None
    coupled: bool = False
    """LSTM: the forget gate is one minus the input gate."""
    linear_before_reset: bool = False
    extras: tuple[str, ...] = ()
    """Which of "inner", "peepholes" and "lengths" are operands."""
    from_zero: bool = False
    """The states begin with zeros; else with operands."""

    @property
    def operands(self) -> tuple[str, ...]:
        return ("x", "r", *(() if self.from_zero else self.starts.values()), *self.extras)

    @property
    def starts(self) -> dict[str, str]:
        """The states that last from step to step, and what they begin with."""
        return {"h": "h0", "cell": "c0"} if self.kind == "LSTM" else {"h": "h0"}

    @property
    def results(self) -> tuple[str, ...]:
        return ("y", "hn", "cn") if self.kind == "LSTM" else ("y", "hn")

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Products of one step; each waits for the one before."""
        if self.kind == "GRU" and not self.linear_before_reset:
            return (Phase((0, 1), "h", ("update", "reset")), Phase((2,), "reset", ("next",)))
        writes = ("cell", "next") if self.kind == "LSTM" else ("next",)
        return (Phase(tuple(range(GATES[self.kind])), "h", writes),)

    @property
    def states(self) -> tuple[str, ...]:
        """The vectors that a sequence keeps from phase to phase."""
        names = {"h", *(name for phase in self.phases for name in phase.writes)}
        return tuple(sorted(names))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Form:
        fields = json.loads(text)
        functions = tuple(tuple(Activation(**f) for f in row) for row in fields["functions"])
        lists = {"backward": tuple(fields["backward"]), "extras": tuple(fields["extras"])}
        return Form(**{**fields, **lists, "functions": functions})


@dataclass(frozen=True)
class Phase:
    """The gates whose products with the vector `source` come together, and what they yield."""

    gates: tuple[int, ...]
    source: str
    writes: tuple[str, ...]


@dataclass
class Unit:
    """One unit of one sequence at one step; `named` collects what is to be computed first."""

    inputs: Callable[[int], Expr]
    products: Mapping[int, Expr]
    old: Mapping[str, Expr]
    inner: Expr | None = None
    peephole: Callable[[int], Expr] | None = None
    named: list[tuple[Var, Expr]] = field(default_factory=list)

    def name(self, value: Expr) -> Expr:
        var = Var("gate", PrimType(value.ty.dtype))
        self.named.append((var, value))
        return var


def advance(form: Form, direction: int, phase: int, unit: Unit) -> dict[str, Expr]:
    """What a phase writes, by the names in ``form.phases[phase].writes``.

    RNN   h = f(a)
    LSTM  c = f(a_f + P_f c) c + f(a_i + P_i c) g(a_c),   h = f(a_o + P_o c) h(c)
    GRU   h = (1 - z) n + z h,   z = f(a_z), r = f(a_r), n = g(x_n + (r h) R)
                                 or, linear before reset, g(x_n + r (h R + inner))
    """
    functions = form.functions[direction]

    def gate(which: int, function: Activation, more: Expr | None = None) -> Expr:
        total = unit.inputs(which) + unit.products[which]
        return unit.name(_apply(function, total if more is None else total + more, form.clip))

    if form.kind == "RNN":
        return {"next": gate(0, functions[0])}
    if form.kind == "LSTM":
        return _lstm(form, functions, unit, gate)
    if phase == 0:
        z, r = gate(0, functions[0]), gate(1, functions[0])
        if not form.linear_before_reset:
            return {"update": z, "reset": r * unit.old["h"]}
        state = unit.products[2] if unit.inner is None else unit.products[2] + unit.inner
        n = unit.name(_apply(functions[1], unit.inputs(2) + r * state, form.clip))
    else:
        z, n = unit.old["update"], gate(2, functions[1])
    return {"next": n + z * (unit.old["h"] - n)}


def _lstm(
    form: Form, functions: Sequence[Activation], unit: Unit, gate: Callable[..., Expr]
) -> dict[str, Expr]:
    """Gates and peepholes are in the orders i, o, f, c and i, o, f."""
    first, second, last = functions

    def look(which: int, cell: Expr) -> Expr | None:
        return None if unit.peephole is None else unit.peephole(which) * cell

    old = unit.old["cell"]
    i = gate(0, first, look(0, old))
    f = tirx.const(1, i.ty.dtype) - i if form.coupled else gate(2, first, look(2, old))
    cell = unit.name(f * old + i * gate(3, second))
    o = gate(1, first, look(1, cell))
    return {"cell": cell, "next": unit.name(o * _apply(last, cell, None))}


def _apply(function: Activation, x: Expr, clip: float | None) -> Expr:
    """The function of `x`, which is limited to +-clip before."""
    if clip is not None:
        x = tirx.min(_like(clip, x), tirx.max(_like(-clip, x), x))
    a, b = _like(function.alpha, x), _like(function.beta, x)
    return FUNCTIONS[function.name](x, a, b)


def _like(value: float, x: Expr) -> Expr:
    return tirx.const(value, x.ty.dtype)


def _positive(x: Expr) -> Expr:
    return tirx.max(_like(0.0, x), x)


def _softplus(x: Expr, _a: Expr, _b: Expr) -> Expr:
    """log(1 + e^x), without an exponential that overflows."""
    size = tirx.max(x, -x)
    return _positive(x) + tirx.log(_like(1.0, x) + tirx.exp(-size))


FUNCTIONS: dict[str, Callable[[Expr, Expr, Expr], Expr]] = {
    "relu": lambda x, a, b: _positive(x),
    "tanh": lambda x, a, b: tirx.tanh(x),
    "sigmoid": lambda x, a, b: tirx.sigmoid(x),
    "affine": lambda x, a, b: a * x + b,
    "leakyrelu": lambda x, a, b: tirx.Select(x < _like(0.0, x), a * x, x),
    "thresholdedrelu": lambda x, a, b: tirx.Select(x > a, x, _like(0.0, x)),
    "scaledtanh": lambda x, a, b: a * tirx.tanh(b * x),
    "hardsigmoid": lambda x, a, b: tirx.min(_like(1.0, x), _positive(a * x + b)),
    "elu": lambda x, a, b: tirx.Select(
        x < _like(0.0, x), a * (tirx.exp(tirx.min(x, _like(0.0, x))) - _like(1.0, x)), x
    ),
    "softsign": lambda x, a, b: x / (_like(1.0, x) + tirx.max(x, -x)),
    "softplus": _softplus,
}
"""ONNX's functions of a value, alpha and beta."""

DEFAULTS: dict[str, tuple[float, float]] = {
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, 0.0),
    "thresholdedrelu": (1.0, 0.0),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, 0.0),
}
"""alpha and beta where the model gives none."""


# -------------------------------------------------------------- a sequence, step by step


@dataclass(frozen=True)
class Steps:
    """When a sequence of a direction is at which step."""

    backward: bool | Expr
    length: Expr | None
    steps: Expr

    def active(self, step: Expr) -> Expr | None:
        """Whether the sequence still runs; None where it always does."""
        return None if self.length is None else step < self.length

    def time(self, step: Expr) -> Expr:
        """The position of a step in the sequence."""
        if self.backward is False:
            return step
        last = self.steps if self.length is None else self.length
        back = last - _one() - step
        turned = [self.active(step), None if self.backward is True else self.backward]
        conditions = [condition for condition in turned if condition is not None]
        return tirx.Select(tirx.all(*conditions), back, step) if conditions else back


def kept(active: Expr | None, new: Expr, old: Expr) -> Expr:
    return new if active is None else tirx.Select(active, new, old)


def length_of(tensors: Mapping[str, Var], row: Expr, steps: Expr) -> Expr | None:
    """The length of a sequence, which is data, within the steps that there are."""
    if "lengths" not in tensors:
        return None
    return tirx.max(tirx.const(0, "int64"), tirx.min(tensors["lengths"][row], steps))


def kernel(form: Form, steps: int | None, batch: int | None, hidden: int, dtype: str) -> PrimFunc:
    """The kernel: loops without any order but that of the steps. A size may be unknown."""
    return _kernel(form, _size(steps, "steps"), _size(batch, "batch"), hidden, dtype)


def _size(value: int | None, name: str) -> Expr:
    return Var(name, "int64") if value is None else tirx.const(value, "int64")


def _kernel(form: Form, steps: Expr, batch: Expr, hidden: int, dtype: str) -> PrimFunc:
    directions = len(form.backward)
    gates = GATES[form.kind]
    state = [directions, batch, hidden]
    shapes: dict[str, tuple[list[Any], str]] = {
        "x": ([steps, batch, directions, gates, hidden], dtype),
        "r": ([directions, gates, hidden, hidden], dtype),
        **dict.fromkeys(("h0", "c0", "hn", "cn"), (state, dtype)),
        "inner": ([directions, hidden], dtype),
        "peepholes": ([directions, 3, hidden], dtype),
        "lengths": ([batch], "int64"),
        "y": ([steps, *state], dtype),
    }
    tensors = {
        name: tirx.decl_buffer(shapes[name][0], shapes[name][1], name)
        for name in (*form.operands, *form.results)
    }
    parts = [
        _for(batch, partial(_sequence, form, d, tensors, steps, hidden)) for d in range(directions)
    ]
    func = PrimFunc(list(tensors.values()), _sequenced(parts))
    return func.with_attrs({FORM: form.to_json(), "op_pattern": OPAQUE, "tirx.noalias": True})


def _sequence(
    form: Form, d: int, tensors: Mapping[str, Var], steps: Expr, hidden: int, row: Expr
) -> tirx.Stmt:
    dtype = str(tensors["x"].dtype)
    own = {name: tirx.decl_buffer([hidden], dtype, name) for name in form.states}
    place = Steps(form.backward[d], length_of(tensors, row, steps), steps)

    def begin(j: Expr) -> tirx.Stmt:
        zero = tirx.const(0, dtype)
        return _sequenced([
            _put(own[name], zero if form.from_zero else tensors[start][d, row, j], j)
            for name, start in form.starts.items()
        ])  # fmt: skip

    def finish(j: Expr) -> tirx.Stmt:
        ends = zip(form.starts, form.results[1:])
        return _sequenced([_put(tensors[end], own[name][j], d, row, j) for name, end in ends])

    def step(s: Expr) -> tirx.Stmt:
        active, time = place.active(s), place.time(s)

        def store(j: Expr) -> tirx.Stmt:
            new = own["next"][j]
            shown = kept(active, new, tirx.const(0, dtype))
            return _sequenced(
                [
                    _put(tensors["y"], shown, time, d, row, j),
                    _put(own["h"], kept(active, new, own["h"][j]), j),
                ]
            )

        phases = [
            _for(hidden, partial(_unit, form, d, number, tensors, own, (time, row), active))
            for number in range(len(form.phases))
        ]
        return _sequenced([*phases, _for(hidden, store)])

    parts = [tirx.AllocBuffer(buffer) for buffer in own.values()]
    return _sequenced([*parts, _for(hidden, begin), _for(steps, step), _for(hidden, finish)])


def _unit(
    form: Form,
    d: int,
    number: int,
    tensors: Mapping[str, Var],
    own: Mapping[str, Var],
    at: tuple[Expr, Expr],
    active: Expr | None,
    j: Expr,
) -> tirx.Stmt:
    time, row = at
    phase, dtype = form.phases[number], str(tensors["x"].dtype)
    sums = tirx.decl_buffer([len(phase.gates)], dtype, "sums")
    hidden = own["h"].shape[0]

    def add(k: Expr) -> tirx.Stmt:
        return _sequenced([
            _put(sums, sums[n] + own[phase.source][k] * tensors["r"][d, gate, j, k], n)
            for n, gate in enumerate(phase.gates)
        ])  # fmt: skip

    inner, holes = tensors.get("inner"), tensors.get("peepholes")
    unit = Unit(
        inputs=lambda gate: tensors["x"][time, row, d, gate, j],
        products={gate: sums[n] for n, gate in enumerate(phase.gates)},
        old={name: buffer[j] for name, buffer in own.items()},
        inner=None if inner is None else inner[d, j],
        peephole=None if holes is None else lambda which: holes[d, which, j],
    )
    new = advance(form, d, number, unit)
    if "cell" in new:
        new["cell"] = kept(active, new["cell"], unit.old["cell"])
    return _sequenced([
        tirx.AllocBuffer(sums),
        *(_put(sums, tirx.const(0, dtype), n) for n in range(len(phase.gates))),
        _for(hidden, add),
        *(tirx.Bind(var, value) for var, value in unit.named),
        *(_put(own[name], value, j) for name, value in new.items()),
    ])  # fmt: skip


def _one() -> Expr:
    return tirx.const(1, "int64")


def _for(extent: Any, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
    var = Var("i", "int64")
    end = tirx.const(extent, "int64") if isinstance(extent, int) else extent
    return tirx.For(var, tirx.const(0, "int64"), end, tirx.ForKind.SERIAL, body(var))


def _put(buffer: Var, value: Expr, *at: Any) -> tirx.Stmt:
    where = [tirx.const(i, "int64") if isinstance(i, int) else i for i in at]
    return tirx.BufferStore(buffer, value, where)


def _sequenced(parts: Sequence[tirx.Stmt]) -> tirx.Stmt:
    return parts[0] if len(parts) == 1 else tirx.SeqStmt(list(parts))
