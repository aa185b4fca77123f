"""Convolutions of one to three spatial dims."""

from __future__ import annotations

from math import prod

from tvm import relax

from ..builder import Call, Converter, DeclinedError, Dims, Result
from .window import window

_CONV = {1: relax.op.nn.conv1d, 2: relax.op.nn.conv2d, 3: relax.op.nn.conv3d}
_TRANSPOSED = {
    1: relax.op.nn.conv1d_transpose,
    2: relax.op.nn.conv2d_transpose,
    3: relax.op.nn.conv3d_transpose,
}

MOST_PHASES = 4096
"""Positions of an output within the strides: a transposed convolution is a sum for each of them."""


def _kernel(call: Call, weight: Dims) -> tuple[int, ...]:
    """Spatial dims of the weight, which must be known sizes."""
    kernel = call.fixed(weight[2:], "the kernel")
    if not 1 <= len(kernel) <= 3:
        raise DeclinedError(f"a kernel of dims {list(kernel)}")
    return kernel


def _conv(call: Call) -> Result:
    result = convolution(call, call.tensor(0), call.tensor(1), call.shape(1))
    return _with_bias(call, result, call.rank(1) - 2)


def convolution(call: Call, data: relax.Expr, weight: relax.Expr, dims: Dims) -> relax.Expr:
    """`data` convolved with `weight`, of shape `dims`, as the attributes of the node say."""
    kernel = _kernel(call, dims)
    if 0 in call.shape(0)[2:]:
        raise DeclinedError("an input without positions")
    win = window(call, kernel)
    return _CONV[len(kernel)](
        data,
        weight,
        strides=win.strides,
        padding=win.padding,
        dilation=win.dilations,
        groups=call.attr("group", 1),
    )


def _conv_transpose(call: Call) -> Result:
    kernel = _kernel(call, call.shape(1))
    rank = len(kernel)
    dilation = tuple(call.attr("dilations", [1] * rank))
    reach = tuple(step * (k - 1) + 1 for k, step in zip(kernel, dilation, strict=True))
    extra, padding = _transposed_padding(call, reach)
    strides = tuple(call.attr("strides", [1] * rank))
    if prod(strides) > MOST_PHASES:
        text = "x".join(map(str, strides))
        raise DeclinedError(f"strides of {text}, of {MOST_PHASES} positions at most")
    result = _TRANSPOSED[rank](
        call.tensor(0),
        call.tensor(1),
        strides=strides,
        padding=padding,
        output_padding=extra,
        dilation=dilation,
        groups=call.attr("group", 1),
    )
    return _with_bias(call, result, rank)


def _transposed_padding(
    call: Call, reach: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(output_padding, padding); from `output_shape` or auto_pad the padding that reaches it.

    `reach` is how many outputs along each axis one input is spread over.
    """
    rank = len(reach)
    extra = tuple(call.attr("output_padding", [0] * rank))
    mode = call.attr("auto_pad", "NOTSET")
    target = call.attr("output_shape")
    if target is None and mode not in ("SAME_UPPER", "SAME_LOWER"):
        pads = call.attr("pads", [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
        return extra, tuple(pads)
    begins, ends = [], []
    for axis, k in enumerate(reach):
        size, stride = call.shape(0)[2 + axis], call.attr("strides", [1] * rank)[axis]
        wanted = target[-rank:][axis] if target is not None else size * stride
        total = stride * (size - 1) + extra[axis] + k - wanted
        if not isinstance(total, int):
            raise DeclinedError("an output shape for a size that is not known")
        if total < 0:  # more than the input is spread over: the rest is 0
            extra, total = (*extra[:axis], extra[axis] - total, *extra[axis + 1 :]), 0
        small, large = total // 2, total - total // 2
        begins.append(large if mode != "SAME_UPPER" else small)
        ends.append(small if mode != "SAME_UPPER" else large)
    return extra, (*begins, *ends)


def _with_bias(call: Call, result: relax.Expr, spatial: int) -> Result:
    if not call.has(2):
        return result
    bias = call.reshape(call.tensor(2), (1, call.shape(2)[0], *[1] * spatial))
    return relax.op.add(call.emit(result), call.emit(bias))


CONVERTERS: dict[str, Converter] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
