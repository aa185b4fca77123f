"""Kernel, stride, dilation and padding of convolutions and pools, from any of ONNX's spellings."""

from __future__ import annotations

from dataclasses import dataclass

from ..builder import Call, DeclinedError


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial dims. `padding` is all begins, then all ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[int, ...]


def window(call: Call, kernel: tuple[int, ...]) -> Window:
    """The window of a Conv or pool node whose data is input 0, [N, C, spatial...]."""
    rank = len(kernel)
    strides = tuple(call.attr("strides", [1] * rank))
    dilations = tuple(call.attr("dilations", [1] * rank))
    padding = tuple(call.attr("pads", [0] * 2 * rank))
    mode = call.attr("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        padding = _same(call, kernel, strides, dilations, mode)
    elif mode == "VALID":
        padding = (0,) * 2 * rank
    if not len(strides) == len(dilations) == len(padding) // 2 == rank:
        raise DeclinedError("strides, dilations or pads do not fit the kernel's rank")
    return Window(kernel, strides, dilations, padding)


def _same(
    call: Call,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    mode: str,
) -> tuple[int, ...]:
    """Padding for ceil(size / stride) outputs; SAME_UPPER puts the odd one at the end."""
    begins, ends = [], []
    for size, k, stride, dilation in zip(call.shape(0)[2:], kernel, strides, dilations):
        extent = (k - 1) * dilation + 1
        if stride == 1:
            total = extent - 1
        elif isinstance(size, int):
            total = max(0, (-(-size // stride) - 1) * stride + extent - size)
        else:
            raise DeclinedError(f"auto_pad {mode} with stride {stride} on the symbolic dim {size}")
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return (*begins, *ends)
