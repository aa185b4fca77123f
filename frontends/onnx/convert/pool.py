"""Pooling with a window, and over the whole of the spatial dims."""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax

from ..builder import Call, Converter, DeclinedError, Result
from .sampling import max_pool_indices
from .window import window

_MAX = {1: relax.op.nn.max_pool1d, 2: relax.op.nn.max_pool2d, 3: relax.op.nn.max_pool3d}
_AVERAGE = {1: relax.op.nn.avg_pool1d, 2: relax.op.nn.avg_pool2d, 3: relax.op.nn.avg_pool3d}


def _max_pool(call: Call) -> Result:
    if call.wants(1):
        return max_pool_indices(call)
    return _global_max(call) if _covers_all(call) else _pool(call, _MAX)


def _average_pool(call: Call) -> Result:
    if _covers_all(call):
        return _global_average(call)
    return _pool(call, _AVERAGE, count_include_pad=bool(call.attr("count_include_pad", 0)))


def _covers_all(call: Call) -> bool:
    """Whether the one window of the node holds the whole of the spatial dims, and no padding."""
    kernel, sizes = call.attr("kernel_shape", ()), call.shape(0)[2:]
    plain = call.attr("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return (
        plain
        and not any(call.attr("pads", ()))
        and {*call.attr("dilations", ())} <= {1}
        and {*call.out_shape()[2:]} == {1}
        and all(isinstance(size, int) and size <= k for size, k in zip(sizes, kernel))
        and (tuple(kernel) == sizes or not call.attr("count_include_pad", 0))
    )


def _pool(call: Call, family: dict[int, Callable[..., relax.Expr]], **options: bool) -> Result:
    kernel = tuple(call.attr("kernel_shape", ()))
    if len(kernel) not in family:
        raise DeclinedError(f"a window of dims {list(kernel)}")
    win = window(call, kernel)
    return family[len(kernel)](
        call.tensor(0),
        pool_size=win.kernel,
        strides=win.strides,
        padding=win.padding,
        dilation=win.dilations,
        ceil_mode=bool(call.attr("ceil_mode", 0)),
        **options,
    )


def _global_average(call: Call) -> Result:
    return relax.op.mean(call.tensor(0), list(range(2, call.rank(0))), keepdims=True)


def _global_max(call: Call) -> Result:
    return relax.op.max(call.tensor(0), list(range(2, call.rank(0))), keepdims=True)


CONVERTERS: dict[str, Converter] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
}
