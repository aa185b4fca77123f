"""Normalizations and softmax."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax

from ...dims import Expr, product
from ..builder import Call, Converter, DeclinedError, Result


def _batch_norm(call: Call) -> Result:
    if call.attr("is_test", 1) == 0:
        raise DeclinedError("training mode")
    if call.attr("training_mode", 0):
        return _batch_norm_in_training(call)
    call.only_outputs(1)
    normalized = relax.op.nn.batch_norm(
        *(call.tensor(index) for index in range(5)),
        axis=1,
        epsilon=call.attr("epsilon", 1e-5),
        training=False,
    )
    return relax.TupleGetItem(call.emit(normalized), 0)


def _batch_norm_in_training(call: Call) -> Result:
    """Normalized by the batch's own mean and variance; running = momentum * old + (1 - m) * own."""
    op, e, dtype = relax.op, call.emit, call.dtype(0)
    axes = [axis for axis in range(call.rank(0)) if axis != 1]
    momentum = call.attr("momentum", 0.9)
    dims = [call.shape(0)[1] if axis == 1 else 1 for axis in range(call.rank(0))]
    mean = e(op.mean(call.tensor(0), axes, keepdims=True))
    centred = e(op.subtract(call.tensor(0), mean))
    inverse = _inverse_deviation(call, centred, axes)
    variance = e(op.mean(e(op.multiply(centred, centred)), axes))
    scale, offset = (e(call.reshape(call.tensor(k), dims)) for k in (1, 2))
    result = e(op.add(e(op.multiply(e(op.multiply(centred, inverse)), scale)), offset))
    own = [e(call.reshape(mean, call.shape(3))), variance]
    running = [
        e(
            op.add(
                e(op.multiply(call.tensor(k), relax.const(momentum, dtype))),
                e(op.multiply(now, relax.const(1 - momentum, dtype))),
            )
        )
        for k, now in zip((3, 4), own)
    ]
    return [result, *running]


def _lp_norm(call: Call) -> Result:
    """x / norm(x), and 0 where the norm is."""
    op, e, x = relax.op, call.emit, call.tensor(0)
    axis = [call.axis(-1, call.rank(0))]
    if call.attr("p", 2) == 1:
        norm = e(op.sum(e(op.abs(x)), axis, keepdims=True))
    else:
        norm = e(op.sqrt(e(op.sum(e(op.multiply(x, x)), axis, keepdims=True))))
    zero = relax.const(0.0, call.dtype(0))
    one = relax.const(1.0, call.dtype(0))
    return op.divide(x, e(op.where(e(op.equal(norm, zero)), one, norm)))


def _layer_norm(call: Call) -> Result:
    rank = call.rank(0)
    axes = list(range(call.axis(-1, rank), rank))
    if call.wants(1) or call.wants(2):
        return _layer_norm_with_statistics(call, axes)
    dims = [call.shape(0)[axis] for axis in axes]
    scale = _spread(call, 1, dims)
    offset = _spread(call, 2, dims) if call.has(2) else _zeros(call, dims)
    return relax.op.nn.layer_norm(call.tensor(0), scale, offset, axes, call.attr("epsilon", 1e-5))


def _layer_norm_with_statistics(call: Call, axes: list[int]) -> Result:
    """The normalized value, the mean, and 1 / sqrt(variance + epsilon)."""
    mean = call.emit(relax.op.mean(call.tensor(0), axes, keepdims=True))
    centred = call.emit(relax.op.subtract(call.tensor(0), mean))
    inverse = _inverse_deviation(call, centred, axes)
    result = call.emit(relax.op.multiply(centred, inverse))
    result = call.emit(relax.op.multiply(result, call.tensor(1)))
    return [relax.op.add(result, call.tensor(2)) if call.has(2) else result, mean, inverse]


def _inverse_deviation(call: Call, tensor: relax.Expr, axes: list[int]) -> relax.Expr:
    """1 / sqrt(mean(x * x) + epsilon) over `axes`, which stay with size 1"""
    square = call.emit(relax.op.multiply(tensor, tensor))
    mean = call.emit(relax.op.mean(square, axes, keepdims=True))
    epsilon = relax.const(call.attr("epsilon", 1e-5), call.dtype(0))
    return call.emit(relax.op.rsqrt(call.emit(relax.op.add(mean, epsilon))))


def _rms_norm(call: Call) -> Result:
    rank = call.rank(0)
    axes = list(range(call.axis(-1, rank), rank))
    scale = _spread(call, 1, [call.shape(0)[axis] for axis in axes])
    if len(axes) == rank:  # TVM cannot lower its own operator then
        inverse = _inverse_deviation(call, call.tensor(0), axes)
        normalized = call.emit(relax.op.multiply(call.tensor(0), inverse))
        return relax.op.multiply(normalized, scale)
    return relax.op.nn.rms_norm(call.tensor(0), scale, axes, call.attr("epsilon", 1e-5))


def _spread(call: Call, index: int, dims: list[int | Expr]) -> relax.Expr:
    """Scale or offset as dims `dims`, which Relax asks for and ONNX only broadcasts to."""
    tensor = call.tensor(index)
    if list(call.shape(index)) == dims:
        return tensor
    return call.emit(relax.op.broadcast_to(tensor, call.shape_expr(dims)))


def _zeros(call: Call, dims: list[int | Expr]) -> relax.Expr:
    sizes = call.fixed(dims, "the normalized shape")
    return call.constant(np.zeros(sizes, call.dtype(0)), "offset")


def _instance_norm(call: Call) -> Result:
    axes = list(range(2, call.rank(0)))
    return relax.op.nn.instance_norm(
        call.tensor(0),
        call.tensor(1),
        call.tensor(2),
        channel_axis=1,
        axes=axes,
        epsilon=call.attr("epsilon", 1e-5),
    )


def _group_norm(call: Call) -> Result:
    groups = call.attr("num_groups")
    scale, offset = call.tensor(1), call.tensor(2)
    if call.version < 21:  # one scale per group; since 21 one per channel
        (channels,) = call.fixed(call.shape(0)[1:2], "the channel axis")
        scale = call.emit(relax.op.repeat(scale, channels // groups, 0))
        offset = call.emit(relax.op.repeat(offset, channels // groups, 0))
    axes = list(range(2, call.rank(0)))
    return relax.op.nn.group_norm(
        call.tensor(0), scale, offset, groups, 1, axes, call.attr("epsilon", 1e-5)
    )


def _softmax(call: Call) -> Result:
    return _over_axis(call, relax.op.nn.softmax)


def _log_softmax(call: Call) -> Result:
    return _over_axis(call, relax.op.nn.log_softmax)


def _over_axis(call: Call, build: Callable[[relax.Expr, int], relax.Expr]) -> Result:
    """Before operator set 13, all axes from `axis` on were one."""
    rank = call.rank(0)
    axis = call.axis(-1 if call.version >= 13 else 1, rank)
    if call.version >= 13 or axis == rank - 1:
        return build(call.tensor(0), axis)
    shape = call.shape(0)
    flat = call.emit(call.reshape(call.tensor(0), (*shape[:axis], product(shape[axis:]))))
    return call.reshape(call.emit(build(flat, axis)), shape)


CONVERTERS: dict[str, Converter] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "LpNormalization": _lp_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}
