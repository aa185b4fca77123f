"""RNN, GRU and LSTM over a known number of steps: the loop is unrolled.

The input products of all steps are one matrix product before the loop; a step multiplies only the
state. Gate order and equations are those of the ONNX operator reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import relax

from ..builder import Call, Converter, DeclinedError, Dims, Result
from .movement import Bounds, slice_axes

MAX_STEPS = 512
"""Longer sequences would make a program with too many kernels."""

State = tuple[relax.Expr, ...]
"""The hidden state [batch, hidden], and for an LSTM its cell state."""


@dataclass(frozen=True)
class Direction:
    """Weights of one direction: recurrence [hidden, gates*hidden], its bias, hidden size."""

    recurrence: relax.Expr
    bias: relax.Expr | None
    hidden: int


@dataclass(frozen=True)
class Cell:
    """`gates` blocks in the weights, inputs of initial states, and the equation of one step."""

    gates: int
    states: tuple[int, ...]
    activations: tuple[str, ...]
    step: Callable[[Call, relax.Expr, State, Direction], State]


def _converter(cell: Cell) -> Converter:
    def convert(call: Call) -> Result:
        _check(call, cell)
        steps = call.shape(0)[1 if call.attr("layout", 0) else 0]
        if not isinstance(steps, int) or steps > MAX_STEPS:
            raise DeclinedError(f"{steps} steps; up to {MAX_STEPS}, of known number, are unrolled")
        (directions,) = call.fixed(call.shape(1)[:1], "the weight")
        return _stack(call, [_run(call, cell, d, steps) for d in range(directions)])

    return convert


def _check(call: Call, cell: Cell) -> None:
    """Declines what the equations below do not cover."""
    wanted = [name.lower() for name in call.attr("activations", [])]
    if wanted != [*cell.activations] * (len(wanted) // len(cell.activations)):
        raise DeclinedError(f"activations {', '.join(wanted)}")
    if call.attr("clip") is not None or call.attr("input_forget", 0) or call.has(7):
        raise DeclinedError("clip, input_forget or peepholes")
    lengths = call.ints(4) if call.has(4) else []
    if call.has(4) and (lengths is None or {*lengths} != {call.shape(0)[0]} or call.attr("layout")):
        raise DeclinedError("sequences of different lengths")


def _run(call: Call, cell: Cell, direction: int, steps: int) -> tuple[list[relax.Expr], State]:
    """The hidden state after each step, in the order of the input, and the final state."""
    batch_first = call.attr("layout", 0)
    data = call.tensor(0)
    if batch_first:
        data = call.emit(relax.op.permute_dims(data, [1, 0, 2]))
    batch = call.shape(0)[0 if batch_first else 1]
    (hidden,) = call.fixed(call.shape(2)[2:], "the recurrence weight")
    width = cell.gates * hidden
    inputs = call.emit(relax.op.matmul(data, _weight(call, 1, direction)))
    bias = None
    if call.has(3):
        both = _slab(call, 3, direction)
        inputs = call.emit(
            relax.op.add(inputs, call.emit(slice_axes(call, both, [(0, 0, width, 1)])))
        )
        bias = call.emit(slice_axes(call, both, [(0, width, 2 * width, 1)]))
    weights = Direction(_weight(call, 2, direction), bias, hidden)
    state = tuple(_initial(call, index, direction, (batch, hidden)) for index in cell.states)
    backward = call.attr("direction", "forward") == "reverse" or direction == 1
    outputs: list[relax.Expr] = []
    for step in reversed(range(steps)) if backward else range(steps):
        row = call.emit(slice_axes(call, inputs, [(0, step, step + 1, 1)]))
        row = call.emit(call.reshape(row, (batch, width)))
        state = cell.step(call, row, state, weights)
        outputs.append(state[0])
    return (outputs[::-1] if backward else outputs), state


def _slab(call: Call, index: int, direction: int) -> relax.Expr:
    """Input `index` of one direction: its first axis is the direction."""
    array = call.builder.constants.get(call.node.input[index])
    if array is not None:
        return call.constant(array[direction], f"{index}_{direction}")
    part = call.emit(slice_axes(call, call.tensor(index), [(0, direction, direction + 1, 1)]))
    return call.emit(call.reshape(part, call.shape(index)[1:]))


def _weight(call: Call, index: int, direction: int) -> relax.Expr:
    """[gates*hidden, inputs] transposed for `data @ weight`."""
    array = call.builder.constants.get(call.node.input[index])
    if array is not None:
        return call.constant(np.ascontiguousarray(array[direction].T), f"{index}_{direction}")
    return call.emit(relax.op.permute_dims(_slab(call, index, direction)))


def _initial(call: Call, index: int, direction: int, dims: Dims) -> relax.Expr:
    if not call.has(index):
        return call.emit(relax.op.zeros(call.shape_expr(dims), call.dtype(0)))
    axis = 1 if call.attr("layout", 0) else 0
    bounds: list[Bounds] = [(axis, direction, direction + 1, 1)]
    return call.emit(call.reshape(call.emit(slice_axes(call, call.tensor(index), bounds)), dims))


def _stack(call: Call, runs: Sequence[tuple[list[relax.Expr], State]]) -> list[relax.Expr]:
    """Y [steps, directions, batch, hidden], then each final state [directions, batch, hidden]."""
    batch_first = call.attr("layout", 0)

    def join(tensors: Sequence[relax.Expr]) -> relax.Expr:
        return call.emit(relax.op.stack(list(tensors), 0))

    sequences = [join(outputs) for outputs, _ in runs]
    whole = call.emit(relax.op.stack(sequences, 1))
    finals = [join([state[k] for _, state in runs]) for k in range(len(runs[0][1]))]
    if batch_first:
        whole = call.emit(relax.op.permute_dims(whole, [2, 0, 1, 3]))
        finals = [call.emit(relax.op.permute_dims(final, [1, 0, 2])) for final in finals]
    return [whole, *finals]


def _blocks(call: Call, tensor: relax.Expr, hidden: int, count: int) -> list[relax.Expr]:
    """[batch, count*hidden] -> `count` tensors [batch, hidden]"""
    return [
        call.emit(slice_axes(call, tensor, [(1, k * hidden, (k + 1) * hidden, 1)]))
        for k in range(count)
    ]


def _product(call: Call, state: relax.Expr, weights: Direction) -> relax.Expr:
    """state @ R + Rb, [batch, gates*hidden]"""
    product = call.emit(relax.op.matmul(state, weights.recurrence))
    return product if weights.bias is None else call.emit(relax.op.add(product, weights.bias))


def _rnn(call: Call, row: relax.Expr, state: State, weights: Direction) -> State:
    total = call.emit(relax.op.add(row, _product(call, state[0], weights)))
    return (call.emit(relax.op.tanh(total)),)


def _lstm(call: Call, row: relax.Expr, state: State, weights: Direction) -> State:
    """c = f*c + i*g, h = o*tanh(c); gates in the order i, o, f, g."""
    total = call.emit(relax.op.add(row, _product(call, state[0], weights)))
    i, o, f, g = _blocks(call, total, weights.hidden, 4)
    kept = call.emit(relax.op.multiply(call.emit(relax.op.sigmoid(f)), state[1]))
    new = call.emit(relax.op.multiply(call.emit(relax.op.sigmoid(i)), call.emit(relax.op.tanh(g))))
    cell = call.emit(relax.op.add(kept, new))
    gate, value = call.emit(relax.op.sigmoid(o)), call.emit(relax.op.tanh(cell))
    return call.emit(relax.op.multiply(gate, value)), cell


def _gru(call: Call, row: relax.Expr, state: State, weights: Direction) -> State:
    """h = (1-z)*n + z*h; gates z, r, n; r applies to h or, linear_before_reset, to h @ R."""
    (h,), size = state, weights.hidden
    xz, xr, xn = _blocks(call, row, size, 3)
    hz, hr, hn = _blocks(call, _product(call, h, weights), size, 3)
    z = call.emit(relax.op.sigmoid(call.emit(relax.op.add(xz, hz))))
    r = call.emit(relax.op.sigmoid(call.emit(relax.op.add(xr, hr))))
    if call.attr("linear_before_reset", 0):
        inner = call.emit(relax.op.multiply(r, hn))
    else:
        reset = _product(call, call.emit(relax.op.multiply(r, h)), weights)
        inner = _blocks(call, reset, size, 3)[2]
    n = call.emit(relax.op.tanh(call.emit(relax.op.add(xn, inner))))
    change = call.emit(relax.op.multiply(z, call.emit(relax.op.subtract(h, n))))
    return (call.emit(relax.op.add(n, change)),)


CONVERTERS: dict[str, Converter] = {
    "RNN": _converter(Cell(1, (5,), ("tanh",), _rnn)),
    "GRU": _converter(Cell(3, (5,), ("sigmoid", "tanh"), _gru)),
    "LSTM": _converter(Cell(4, (5, 6), ("sigmoid", "tanh", "tanh"), _lstm)),
}
