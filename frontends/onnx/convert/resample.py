"""Resize in all of ONNX's modes, for known sizes: a weighted sum of elements along each axis.

    y[i] = sum of w[k, i] * x[at[k, i]] over k

Indices and weights are computed here, in double precision, as onnx.reference computes them:

    x0 = where output i lies in the input;  base = ceil(x0) - 1;  r = x0 - base, in (0, 1]
    w[k] = f(|k - r|)   for the elements base + k;   what lies outside is the element at the edge
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import relax

from ..builder import Call, DeclinedError

MAX_TAPS = 64


@dataclass(frozen=True)
class Axis:
    """One resized axis. `scale` need not be the ratio of the sizes; `roi` are start and end."""

    axis: int
    size: int
    target: int
    scale: float
    roi: tuple[float, float]


def resample(call: Call, axes: list[Axis]) -> relax.Expr:
    """Input 0 resized along `axes`."""
    dtype = call.dtype(0)
    nearest = call.attr("mode", "nearest") == "nearest"
    wide = dtype if nearest or dtype == "float64" else "float32"
    tensor = call.tensor(0)
    if wide != dtype:
        tensor = call.emit(relax.op.astype(tensor, wide))
    for axis in axes:
        tensor = _along(call, tensor, axis, nearest, wide)
    outside = [(axis.axis, mask) for axis in axes if (mask := ~_positions(call, axis)[1]).any()]
    for place, mask in outside:
        dims = [mask.size if k == place else 1 for k in range(call.rank(0))]
        value = relax.const(call.attr("extrapolation_value", 0.0), wide)
        where = call.constant(mask.reshape(dims), f"outside_{place}")
        tensor = call.emit(relax.op.where(where, value, tensor))
    return tensor if wide == dtype else relax.op.astype(tensor, dtype)


def _along(call: Call, tensor: relax.Expr, axis: Axis, nearest: bool, dtype: str) -> relax.Expr:
    at, weights = _taps(call, axis)
    if nearest:  # one weight is 1
        at = np.take_along_axis(at, weights.argmax(0)[None], 0)
    total = None
    for k, (row, weight) in enumerate(zip(at, weights)):
        index = call.constant(row, f"at_{axis.axis}_{k}")
        part = call.emit(relax.op.take(tensor, index, axis.axis, mode="fast"))
        if nearest:
            return part
        dims = [axis.target if d == axis.axis else 1 for d in range(call.rank(0))]
        factor = call.constant(weight.astype(dtype).reshape(dims), f"weight_{axis.axis}_{k}")
        part = call.emit(relax.op.multiply(part, factor))
        total = part if total is None else call.emit(relax.op.add(total, part))
    return total


def _taps(call: Call, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """[taps, target] elements and their weights."""
    antialias = call.attr("antialias", 0) and call.attr("mode", "nearest") != "nearest"
    narrow = min(axis.scale, 1.0) if antialias else 1.0
    shape, reach = _shape(call)
    first = math.floor(-reach / narrow) + 1
    offsets = np.arange(first, 2 - first)[:, None]
    if len(offsets) > MAX_TAPS:
        raise DeclinedError(f"a scale of {axis.scale:g} with antialias")
    positions, _ = _positions(call, axis)
    base = np.ceil(positions).astype(np.int64) - 1
    weights = shape((offsets - (positions - base)) * narrow)
    at = base + offsets
    if call.attr("exclude_outside", 0):
        weights = weights * ((at >= 0) & (at < axis.size))
    if call.attr("exclude_outside", 0) or antialias:
        weights = weights / weights.sum(0)
    return at.clip(0, axis.size - 1), weights


def _shape(call: Call) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """The weight by distance, and the distance from which on it is 0."""
    a = call.attr("cubic_coeff_a", -0.75)
    mode = call.attr("mode", "nearest")
    default = "round_prefer_floor" if call.version > 10 else "floor"
    rounding = call.attr("nearest_mode", default)

    def nearest(d: np.ndarray) -> np.ndarray:
        # d is -r and 1 - r of the two neighbours; r = 1 is an element itself
        r = -d[0]
        down = {
            "floor": r < 1,
            "ceil": r <= 0,
            "round_prefer_floor": r <= 0.5,
            "round_prefer_ceil": r < 0.5,
        }[rounding]
        return np.stack([down, ~down]).astype(float)

    def linear(d: np.ndarray) -> np.ndarray:
        return (1 - abs(d)).clip(0, 1)

    def cubic(d: np.ndarray) -> np.ndarray:
        d = abs(d)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    return {"nearest": (nearest, 1), "linear": (linear, 1), "cubic": (cubic, 2)}[mode]


def _positions(call: Call, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Where in the input each output lies, and whether that is inside of it."""
    default = "half_pixel" if call.version > 10 else "asymmetric"
    mode = call.attr("coordinate_transformation_mode", default)
    i, size, length = np.arange(axis.target), axis.size, axis.scale * axis.size
    inside = np.full(axis.target, True)
    if mode == "align_corners":
        return (i * (size - 1) / (length - 1) if length != 1 else i * 0.0), inside
    if mode == "asymmetric":
        return i / axis.scale, inside
    if mode == "tf_crop_and_resize":
        start, end = axis.roi
        step = (end - start) * (size - 1)
        found = start * (size - 1) + (
            i * step / (length - 1) if length != 1 else i * 0.0 + step / 2
        )
        return found, (found >= 0) & (found <= size - 1)
    half = (i + 0.5) / axis.scale - 0.5
    if mode == "half_pixel_symmetric":
        half = half + size / 2 * (1 - axis.target / length)
    elif mode == "pytorch_half_pixel" and length == 1:
        half = i * 0.0 - 0.5
    elif mode not in ("half_pixel", "pytorch_half_pixel"):
        raise DeclinedError(f"coordinate transformation {mode}")
    return half, inside
