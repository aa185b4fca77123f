"""RNN, GRU and LSTM: one product for the inputs of all steps, then one kernel for all steps.

    x = X W^T + Wb + Rb,   [steps, batch, directions, gates, hidden]
    Y, Y_h, Y_c = recurrence(x, R, h0, ...)

The number of steps and the batch may be symbolic; the kernel is that of frontends/recurrence.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax
from tvm.tirx import IntImm

from ...recurrence import DEFAULTS, FUNCTIONS, GATES, Activation, Form, kernel
from ..builder import Call, Converter, DeclinedError, Dims, Result
from .movement import Bounds, slice_axes

USUAL = {
    "RNN": ("tanh",),
    "GRU": ("sigmoid", "tanh"),
    "LSTM": ("sigmoid", "tanh", "tanh"),
}


def _converter(kind: str) -> Converter:
    def convert(call: Call) -> Result:
        return _convert(call, kind)

    return convert


def _convert(call: Call, kind: str) -> list[relax.Expr]:
    directions, hidden = call.fixed((call.shape(1)[0], call.shape(2)[2]), "the weight")
    batch_first = bool(call.attr("layout", 0))
    steps, batch = call.shape(0)[:2][:: -1 if batch_first else 1]
    form = _form(call, kind, directions)
    wide = "float64" if call.dtype(0) == "float64" else "float32"
    operands = [_inputs(call, form, (steps, batch), hidden, wide)]
    operands.append(_weight(call, 2, (directions, GATES[kind], hidden, hidden), wide))
    states = ("h0", "c0") if kind == "LSTM" else ("h0",)
    for index, _ in enumerate(states, 5):
        operands.append(_state(call, index, (directions, batch, hidden), wide))
    operands += [_extra(call, name, directions, hidden, wide) for name in form.extras]
    known = [n if isinstance(n, int) else None for n in (steps, batch)]
    state = relax.TensorType(call.shape_expr((directions, batch, hidden)), wide)
    whole = relax.TensorType(call.shape_expr((steps, directions, batch, hidden)), wide)
    function = call.builder.bb.add_func(
        kernel(form, known[0], known[1], hidden, wide), kind.lower()
    )
    types = [whole, *(state for _ in states)]
    results = call.emit(relax.call_tir(function, relax.Tuple(operands), types))
    parts = [call.emit(relax.TupleGetItem(results, k)) for k in range(len(types))]
    if batch_first:
        orders = [[2, 0, 1, 3], *([1, 0, 2] for _ in states)]
        parts = [call.emit(relax.op.permute_dims(p, order)) for p, order in zip(parts, orders)]
    if wide != call.dtype(0):
        parts = [call.emit(relax.op.astype(part, call.dtype(0))) for part in parts]
    return parts


def _form(call: Call, kind: str, directions: int) -> Form:
    wanted = [name.lower() for name in call.attr("activations", [])]
    each = len(USUAL[kind])
    wanted = wanted or [*USUAL[kind]] * directions
    if len(wanted) != each * directions or not {*wanted} <= FUNCTIONS.keys():
        raise DeclinedError(f"activations {', '.join(wanted)}")
    functions = _with_numbers(wanted, call.attr("activation_alpha"), call.attr("activation_beta"))
    extras = ["inner"] if _has_inner(call, kind) else []
    if kind == "LSTM" and call.has(7):
        extras.append("peepholes")
    if call.has(4):
        extras.append("lengths")
    backward = (False, True) if directions == 2 else (call.attr("direction") == "reverse",)
    return Form(
        kind,
        tuple(tuple(functions[d * each : (d + 1) * each]) for d in range(directions)),
        backward,
        call.attr("clip"),
        bool(call.attr("input_forget", 0)),
        bool(call.attr("linear_before_reset", 0)),
        tuple(extras),
    )


def _with_numbers(
    names: Sequence[str], alphas: Sequence[float] | None, betas: Sequence[float] | None
) -> list[Activation]:
    """The lists hold a number for each function that takes one, in order."""
    rest = list(alphas or []), list(betas or [])
    found = []
    for name in names:
        numbers = list(DEFAULTS.get(name, (0.0, 0.0)))
        for place, values in enumerate(rest):
            takes = name in DEFAULTS if place == 0 else name in TAKES_BETA
            if takes and values:
                numbers[place] = values.pop(0)
        found.append(Activation(name, *numbers))
    return found


TAKES_BETA = ("affine", "scaledtanh", "hardsigmoid")


def _has_inner(call: Call, kind: str) -> bool:
    return kind == "GRU" and bool(call.attr("linear_before_reset", 0)) and call.has(3)


def _inputs(call: Call, form: Form, sizes: Dims, hidden: int, dtype: str) -> relax.Expr:
    """The part of every gate that does not depend on the state."""
    steps, batch = sizes
    directions, gates = len(form.backward), GATES[form.kind]
    (size,) = call.fixed(call.shape(1)[2:], "the weight")
    data = _cast(call, call.tensor(0), dtype)
    if call.attr("layout", 0):
        data = call.emit(relax.op.permute_dims(data, [1, 0, 2]))
    weight = _weight(call, 1, (directions * gates * hidden, size), dtype, transposed=True)
    total = call.emit(relax.op.matmul(data, weight))
    if call.has(3):
        bias = _bias(call, form, directions, gates * hidden, dtype)
        total = call.emit(relax.op.add(total, bias))
    return call.emit(call.reshape(total, (steps, batch, directions, gates, hidden)))


def _bias(call: Call, form: Form, directions: int, width: int, dtype: str) -> relax.Expr:
    """Wb + Rb; where a reset gate applies to a part of Rb, without that part."""
    both = call.emit(call.reshape(_cast(call, call.tensor(3), dtype), (directions, 2, width)))
    parts = [
        call.emit(
            call.reshape(call.emit(slice_axes(call, both, [(1, k, k + 1, 1)])), (directions, width))
        )
        for k in range(2)
    ]
    if "inner" in form.extras:
        mask = np.ones((1, width), dtype)
        mask[:, width // 3 * 2 :] = 0
        parts[1] = call.emit(relax.op.multiply(parts[1], relax.const(mask, dtype)))
    total = call.emit(relax.op.add(*parts))
    return call.emit(call.reshape(total, (directions * width,)))


def _extra(call: Call, name: str, directions: int, hidden: int, dtype: str) -> relax.Expr:
    if name == "lengths":
        batch = call.shape(0)[0 if call.attr("layout", 0) else 1]
        return _matched(call, _cast(call, call.tensor(4), "int64"), (batch,))
    if name == "peepholes":
        return _weight(call, 7, (directions, 3, hidden), dtype)
    bounds: list[Bounds] = [(1, 5 * hidden, 6 * hidden, 1)]
    return _cast(call, call.emit(slice_axes(call, call.tensor(3), bounds)), dtype)


def _weight(
    call: Call, index: int, dims: tuple[int, ...], dtype: str, *, transposed: bool = False
) -> relax.Expr:
    """An input in other dims; a constant is one in them from the start."""
    array = call.builder.constants.get(call.node.input[index])
    if array is not None:
        array = array.astype(dtype, copy=False).reshape(dims)
        array = np.ascontiguousarray(array.T if transposed else array)
        return call.constant(array, str(index))
    tensor = call.emit(call.reshape(_cast(call, call.tensor(index), dtype), dims))
    return call.emit(relax.op.permute_dims(tensor)) if transposed else tensor


def _state(call: Call, index: int, dims: Dims, dtype: str) -> relax.Expr:
    if not call.has(index):
        return call.emit(relax.op.zeros(call.shape_expr(dims), dtype))
    state = _cast(call, call.tensor(index), dtype)
    if call.attr("layout", 0):
        state = call.emit(relax.op.permute_dims(state, [1, 0, 2]))
    return _matched(call, state, dims)


def _matched(call: Call, tensor: relax.Expr, dims: Dims) -> relax.Expr:
    """The tensor, which has these dims; a run in which it has others fails before the kernel."""
    found = list(tensor.ty.shape)
    pairs = list(zip(found, dims))
    if len(found) == len(dims) and all(call.builder.proves_equal(*pair) for pair in pairs):
        return tensor
    fixed = [(n.value, m) for n, m in pairs if isinstance(n, IntImm) and isinstance(m, int)]
    if len(found) != len(dims) or any(n != m for n, m in fixed):
        raise DeclinedError(f"a tensor of {found}, where {', '.join(map(str, dims))} are needed")
    wanted = relax.TensorType(call.shape_expr(dims), str(tensor.ty.dtype))
    return call.match(tensor, wanted)


def _cast(call: Call, tensor: relax.Expr, dtype: str) -> relax.Expr:
    if str(tensor.ty.dtype) == dtype:
        return tensor
    return call.emit(relax.op.astype(tensor, dtype))


CONVERTERS: dict[str, Converter] = {kind: _converter(kind) for kind in USUAL}
