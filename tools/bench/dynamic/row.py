"""The row of one case: the kernel for any size in turns with its rivals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from tvmext.measure.agreement import agreement
from tvmext.measure.figures import Figures, figures
from tvmext.measure.samples import Noisy, Round, ratio, timing
from tvmext.measure.timing import Call

from ..cases.case import Graph, node
from ..contenders import Contender, onnx_runtime
from . import kernels
from .cases import Case, Conv, Gemm

OURS, STATIC, BEST = "dynamic", "static", "best"
ONNX_RUNTIME, TORCH = "onnxruntime", "torch"
FINALISTS = 2
TRIAL_SECONDS = 0.02
Rounds = Callable[[Mapping[str, Call]], list[Round]]


def case_of(request: Mapping[str, Any]) -> Case:
    """The case that the fields of a request describe."""
    return Conv(**request) if "net" in request else Gemm(**request)


def dynamic_row(
    request: Mapping[str, Any], against: list[str], threads: int, rounds: Rounds
) -> Figures:
    """{"case", "family", "decisions", "sides", "ratios"}, and "oracle" if the request asks for it.

    A request is {"dynamic": fields of a case, "folder": of the libraries, "oracle": bool}. Ratios
    are of a side's time to that of the kernel for any size. The oracle is the fastest of the
    kernels for any size that have one of its candidates alone.
    """
    case, folder = case_of(request["dynamic"]), Path(request["folder"])
    ours, fixed = kernels.dynamic(case), kernels.static(case)
    others = {k.name: k for k in kernels.candidates(case)} if request["oracle"] else {}
    others.pop(ours.name, None)
    library = kernels.libraries([ours, fixed, *others.values()], folder)
    arrays = kernels.inputs(case)
    rival, shares = _rival(case, arrays, threads)
    calls: dict[str, Call] = {}
    for name, kernel in ((OURS, ours), (STATIC, fixed)):
        calls[name], result = _bound(kernel, library, case, arrays)
        agreement(result, rival.result)
    calls[ONNX_RUNTIME] = rival.call
    if TORCH in against:
        calls[TORCH] = _torch(case, arrays, threads)
    best: list[tuple[float, kernels.Ready, Call]] = []
    for kernel in others.values():
        call, result = _bound(kernel, library, case, arrays)
        agreement(result, rival.result)
        best.append((_trial(call), kernel, call))
        best = sorted(best, key=lambda one: one[0])[:FINALISTS]
    calls |= {f"{BEST}{i}": call for i, (_, _, call) in enumerate(best)}
    turns = rounds(calls)
    row: Figures = {
        "case": case.name,
        "family": case.name.partition("/")[0],
        "threads": threads,
        "flops": case.flops,
        "decisions": {OURS: str(ours.decision), STATIC: str(fixed.decision)},
        **figures(turns, OURS, None, shares),
    }
    if best:
        taken = [_share(turns, f"{BEST}{i}") for i in range(len(best))]
        fastest = min(range(len(best)), key=lambda i: taken[i])
        row["oracle"] = min(1.0, taken[fastest])
        row["decisions"][BEST] = str(best[fastest][1].decision)
    return row


def _bound(
    kernel: kernels.Ready, library: Any, case: Case, arrays: Mapping[str, np.ndarray]
) -> tuple[Call, np.ndarray]:
    """The call of a kernel, and what it computes."""
    out = tvm.runtime.empty(kernels.out_shape(case), "float32")
    call = kernel.call(library, list(arrays.values()), kernels.sizes(case), out)
    call()
    result: np.ndarray = out.numpy()
    return call, np.moveaxis(result, 3, 1) if isinstance(case, Conv) else result


def _share(turns: list[Round], name: str) -> float:
    """Time of a side over ours, of the minima where the machine was disturbed."""
    found = ratio(turns, OURS, name)
    if isinstance(found, Noisy):
        return timing(turns, name).minimum / timing(turns, OURS).minimum
    return found.value


def _trial(call: Call) -> float:
    """The least seconds of a few calls."""
    best, end = float("inf"), time.perf_counter() + TRIAL_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def _rival(
    case: Case, arrays: Mapping[str, np.ndarray], threads: int
) -> tuple[Contender, dict[str, float]]:
    """ONNX Runtime, and which part of its time is no change of layout at the edges."""
    if isinstance(case, Gemm):
        held = {"w": arrays["w"]} if case.weight else {}
        given = {name: array for name, array in arrays.items() if name not in held}
        graph = Graph([node("MatMul", "x w", "y")], given, "y", held)
        return onnx_runtime(graph.model(), graph.inputs, threads), {}
    attributes = {"strides": [case.stride] * 2, "pads": [case.padding] * 4}
    nodes = [node("Conv", "x w b", "y", **attributes), node("Relu", "y", "z")]
    first = {name: np.ascontiguousarray(np.moveaxis(arrays[name], 3, 1)) for name in "xw"}
    graph = Graph(nodes, {"x": first["x"]}, "z", {"w": first["w"], "b": arrays["b"]})
    found = onnx_runtime(graph.model(), graph.inputs, threads)
    return found, {ONNX_RUNTIME: found.interior(), OURS: 1.0}


def _torch(case: Case, arrays: Mapping[str, np.ndarray], threads: int) -> Call:
    """oneDNN, weights laid out beforehand, pictures with channels last."""
    import torch

    torch.set_num_threads(threads)
    x, w, *b = map(torch.from_numpy, arrays.values())
    with torch.inference_mode():
        if isinstance(case, Conv):
            x, w = (t.permute(0, 3, 1, 2) for t in (x, w))
            step, pad = (case.stride,) * 2, (case.padding,) * 2
            w = torch.ops.mkldnn._reorder_convolution_weight(w, pad, step, (1, 1), 1, x.shape)
            settings = (pad, step, (1, 1), 1, "relu", [], "")
            run = lambda: torch.ops.mkldnn._convolution_pointwise(x, w, b[0], *settings)  # noqa: E731
        elif case.weight:
            packed = torch.ops.mkldnn._reorder_linear_weight(w.T.contiguous(), x.shape[0])
            run = lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")  # noqa: E731
        else:
            run = lambda: torch.matmul(x, w)  # noqa: E731

        def call() -> object:
            with torch.inference_mode():
                return run()

        call()
    return call
