"""Fourier transforms: a product with the matrix of the transform, for known lengths.

    forward    y[k] = sum of x[t] * exp(-2 pi i k t / n) over t
    inverse    x[t] = sum of y[k] * exp(+2 pi i k t / n) over k, / n

Complex numbers are two elements, real and imaginary part; the matrix maps (t, part) to (k, part).
"""

from __future__ import annotations

import numpy as np
from tvm import relax

from ..builder import Call, Converter, DeclinedError, Result

MAX_ELEMENTS = 1 << 24
"""Of a matrix: 64 MB."""


def _matrix(
    call: Call, given: int, parts: int, length: int, inverse: bool, onesided: bool
) -> np.ndarray:
    """[given, parts, results, their parts] for `given` elements, cut or padded to `length`."""
    count = length // 2 + 1 if onesided and not inverse else length
    if given * parts * count * 2 > MAX_ELEMENTS:
        raise DeclinedError(f"a Fourier transform of {length} elements")
    used = min(given, length // 2 + 1 if onesided and inverse else length)
    angle = 2 * np.pi * (np.outer(np.arange(used), np.arange(count)) % length) / length
    cos, sin = np.cos(angle), np.sin(angle) * (1 if inverse else -1)
    matrix = np.zeros((given, parts, count, 2))
    matrix[:used, 0] = np.stack([cos, sin], -1)
    if parts == 2:
        matrix[:used, 1] = np.stack([-sin, cos], -1)
    if inverse:
        matrix /= length
    if onesided and inverse:  # the other half is conjugate, the result real
        twice = np.full(used, 2.0)
        twice[0] = 1
        if length % 2 == 0 and used == length // 2 + 1:
            twice[-1] = 1
        matrix[:used] *= twice[:, None, None, None]
        return matrix[..., :1]
    return matrix


def _transformed(call: Call, tensor: relax.Expr, matrix: np.ndarray, out: tuple) -> relax.Expr:
    """[.., n, parts] -> [.., results, parts], of dims `out`."""
    given, parts, count, results = matrix.shape
    dtype = call.dtype(0)
    wide = "float64" if dtype == "float64" else "float32"
    weight = call.constant(matrix.reshape(given * parts, count * results).astype(wide), "matrix")
    if wide != dtype:
        tensor = call.emit(relax.op.astype(tensor, wide))
    flat = call.emit(call.reshape(tensor, (*out[:-2], given * parts)))
    product = call.emit(call.reshape(call.emit(relax.op.matmul(flat, weight)), out))
    return product if wide == dtype else call.emit(relax.op.astype(product, dtype))


def _dft(call: Call) -> Result:
    rank, shape = call.rank(0), call.shape(0)
    if call.version >= 20:
        axis = call.need_ints(2, "the axis")[0] if call.has(2) else -2
    else:
        axis = call.attr("axis", 1)
    axis %= rank
    given, parts = call.fixed((shape[axis], shape[-1]), "the axis of the transform")
    inverse, onesided = bool(call.attr("inverse", 0)), bool(call.attr("onesided", 0))
    length = 2 * (given - 1) if inverse and onesided else given
    if call.has(1):
        (length,) = call.need_ints(1, "the length of the transform")
    if length < 1:
        raise DeclinedError(f"a Fourier transform of {length} elements")
    matrix = _matrix(call, given, parts, length, inverse, onesided)
    order = [k for k in range(rank - 1) if k != axis] + [axis, rank - 1]
    moved = call.emit(relax.op.permute_dims(call.tensor(0), order))
    dims = (*(shape[k] for k in order[:-2]), *matrix.shape[2:])
    result = _transformed(call, moved, matrix, dims)
    return relax.op.permute_dims(result, [order.index(k) for k in range(rank)])


def _stft(call: Call) -> Result:
    """Frames of the signal, times the window, transformed."""
    batch, size, parts = call.shape(0)
    size, parts = call.fixed((size, parts), "the signal")
    (step,) = call.need_ints(1, "the frame step")
    length = call.fixed(call.shape(2), "the window")[0] if call.has(2) else 0
    if call.has(3):
        (length,) = call.need_ints(3, "the frame length")
    if step < 1 or not 1 <= length <= size:
        raise DeclinedError(f"frames of {length} elements every {step}, of {size}")
    frames = (size - length) // step + 1
    index = step * np.arange(frames)[:, None] + np.arange(length)
    rows = call.emit(relax.op.take(call.tensor(0), call.constant(index, "frames"), 1, mode="fast"))
    if call.has(2):
        window = call.emit(call.reshape(call.tensor(2), (1, 1, length, 1)))
        rows = call.emit(relax.op.multiply(rows, window))
    matrix = _matrix(call, length, parts, length, False, bool(call.attr("onesided", 1)))
    return _transformed(call, rows, matrix, (batch, frames, *matrix.shape[2:]))


CONVERTERS: dict[str, Converter] = {"DFT": _dft, "STFT": _stft}
