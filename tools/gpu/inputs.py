"""A case as a problem: a model, its inputs, and what should come out."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import ml_dtypes  # noqa: F401  gives NumPy the dtype bfloat16
import numpy as np

from .cases import Case

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """What contenders solve: `model` is an IRModule or an ONNX file, `check` judges an output.

    ``torch(torch, tensors)`` returns the call that computes the same with torch, if there is one.
    """

    dtype: str
    inputs: Arrays
    model: Any
    check: Callable[[np.ndarray], float]
    """The largest error of an output, in units of what is allowed."""
    torch: Callable[[Any, list[Any]], Callable[[], Any]] | None = None
    """Of a network it has other weights: its results are not compared."""
    kind: str = "network"


def problem(case: Case) -> Problem:
    """The problem of an operator's case."""
    arrays = inputs(case)
    right = expected(case, arrays)

    def check(result: np.ndarray) -> float:
        got = compared(case, result)
        bound = TOLERANCE[case.dtype] * (1 + np.abs(right))
        return float(np.max(np.abs(got - right) / bound)) if got.shape == right.shape else np.inf

    return Problem(
        case.dtype,
        arrays,
        module(case),
        check,
        lambda torch, tensors: _torch(case, torch, tensors),
        case.family,
    )


def _torch(case: Case, torch: Any, tensors: list[Any]) -> Callable[[], Any]:
    """What a user of torch writes: cuBLAS, cuDNN in channels-last, SDPA."""
    functional, s = torch.nn.functional, case.sizes
    if case.family == "gemm":
        return lambda: torch.matmul(*tensors)
    if case.family == "conv":
        x, w = (t.permute(0, 3, 1, 2) for t in tensors)  # channels last in memory
        pad = s["window"] // 2
        return lambda: functional.conv2d(x, w, None, s["stride"], pad).permute(0, 2, 3, 1)
    return lambda: functional.scaled_dot_product_attention(*tensors, is_causal=bool(s["causal"]))


def stored(dtype: str) -> str:
    """The type of a case's tensors: tf32 is a way to multiply float32."""
    return "float32" if dtype == "tfloat32" else dtype


def shapes(case: Case) -> dict[str, tuple[tuple[int, ...], float]]:
    """The shape of each input, and its standard deviation: sums over the depth keep that of 1."""
    s = case.sizes
    if case.family == "gemm":
        return {"x": ((s["m"], s["k"]), 1.0), "w": ((s["k"], s["n"]), s["k"] ** -0.5)}
    if case.family == "conv":
        window = (s["window"], s["window"], s["c"])
        return {
            "x": ((s["batch"], s["size"], s["size"], s["c"]), 1.0),
            "w": ((s["o"], *window), prod(window) ** -0.5),
        }
    heads = (s["batch"], s["heads"])
    lengths = {"q": s["queries"], "k": s["keys"], "v": s["keys"]}
    return {name: ((*heads, length, s["dim"]), 1.0) for name, length in lengths.items()}


def inputs(case: Case) -> Arrays:
    """Normal values; of the large cases that takes seconds."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    return {
        name: (rng.standard_normal(shape, np.float32) * np.float32(scale)).astype(
            stored(case.dtype)
        )
        for name, (shape, scale) in shapes(case).items()
    }


def module(case: Case) -> Any:
    """The case as a network writes it, in Relax."""
    from tvm import relax

    builder = relax.BlockBuilder()
    params = [
        relax.Var(name, relax.TensorType(shape, stored(case.dtype)))
        for name, (shape, _) in shapes(case).items()
    ]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(_expression(case, params)))
        builder.emit_func_output(result)
    return builder.get()


def _expression(case: Case, params: list[Any]) -> Any:
    from tvm import relax
    from tvm.relax import op

    s = case.sizes
    if case.family == "gemm":
        return op.matmul(*params)
    if case.family == "conv":
        pad = s["window"] // 2
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI", "out_layout": "NHWC"}
        return op.nn.conv2d(*params, s["stride"], pad, **layouts)
    q, k, v = params
    dtype = stored(case.dtype)
    scores = op.multiply(
        op.matmul(q, op.permute_dims(k, [0, 1, 3, 2])), relax.const(s["dim"] ** -0.5, dtype)
    )
    if s["causal"]:
        late = np.triu(np.full((s["queries"], s["keys"]), -np.inf, np.float32), 1).astype(dtype)
        scores = op.add(scores, relax.const(late))
    return op.matmul(op.nn.softmax(scores, axis=-1), v)


def expected(case: Case, arrays: Arrays) -> np.ndarray:
    """The result at `rows(case)`, of the first image or head, by NumPy in float32.

    The whole of a product would take the CPU longer than all the timing.
    """
    s = case.sizes
    if case.family == "gemm":
        some = np.asarray(arrays["x"][rows(case)], np.float32)
        return some @ np.asarray(arrays["w"], np.float32)
    a = {name: np.asarray(array[:1], np.float32) for name, array in arrays.items() if name != "w"}
    if case.family == "conv":
        pad = s["window"] // 2
        padded = np.pad(a["x"], ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        view = np.lib.stride_tricks.sliding_window_view(padded, (s["window"],) * 2, (1, 2))
        windows = view[:, :: s["stride"], :: s["stride"]][0][rows(case)]
        flat = windows.transpose(0, 1, 3, 4, 2).reshape(*windows.shape[:2], -1)
        return flat @ np.asarray(arrays["w"], np.float32).reshape(s["o"], -1).T
    at = rows(case)
    scores = a["q"][0, 0][at] @ a["k"][0, 0].T * np.float32(s["dim"] ** -0.5)
    if s["causal"]:
        scores = np.where(np.arange(s["keys"]) > np.array(at)[:, None], -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ a["v"][0, 0]


def rows(case: Case) -> list[int]:
    """Which rows of the result are compared: the first, the last, and two between."""
    s = case.sizes
    out = (
        (s["size"] + 2 * (s["window"] // 2) - s["window"]) // s["stride"] + 1 if "size" in s else 0
    )
    count = {"gemm": s.get("m", 0), "conv": out, "attention": s.get("queries", 0)}[case.family]
    return sorted({0, count // 3, 2 * count // 3, count - 1})


def compared(case: Case, result: np.ndarray) -> np.ndarray:
    """The part of a contender's result that `expected` describes, in float32."""
    part = result if case.family == "gemm" else result[0]
    part = part[0] if case.family == "attention" else part
    return np.asarray(part[rows(case)], np.float32)


TOLERANCE = {"float16": 1e-2, "bfloat16": 8e-2, "tfloat32": 1e-2, "float32": 1e-4}
"""Of results near 1: a few units in the last place, and tf32 keeps as many bits as float16."""
