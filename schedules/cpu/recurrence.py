"""Recurrent networks: all steps of LSTM, GRU and RNN in one kernel (frontends/recurrence.py).

    for direction, some sequences of the batch in parallel:
        for step:
            for block of units:                       gates x vectors x sequences in registers
                for k:  sums += state[k] * weights[block, k]
                equations of the cell
            store the new state

The weights are packed in the order in which a step reads them, ``[block, k, gate, unit]``, and stay
in the cache from step to step. Sequences are independent, so one launch serves all steps. What
remains of the batch after whole groups of sequences runs one by one. Directions that have the same
functions are one code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import CpuArch
from tvmext.frontends.recurrence import FORM, Form

from ..kernel.analysis import constant
from ..kernel.emit import block, ceildiv, index, known, loop
from ..rule import Declined, Kernel, Layout, Scheduled
from .plan import LAUNCH_NS, UNKNOWN_DIM
from .recurrence_steps import Builder, Decision

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
        body = Builder(workload.form, tensors, decision).build()
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
