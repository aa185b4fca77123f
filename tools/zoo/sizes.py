"""A network compiled once, compared with ONNX Runtime at many sizes of every dim."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from tests.zoo import light
from tvmext.errors import DimError, ModelError
from tvmext.verification.compare import compare, tolerance_of
from tvmext.verification.reference import make_reference

Sizes = dict[str, int]

BATCH = (0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 19)
LENGTH = (0, 1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 32, 33, 64, 65, 127)
SIDE = (0, 1, 7, 16, 31, 32, 33, 40, 48, 61, 64, 65, 72, 80, 96, 97)
COARSE_SIDE = (0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 128, 160, 192)
"""For networks that demand multiples."""

WISHES = {"batch": BATCH, "text_batch": BATCH, "height": SIDE, "width": SIDE}
"""None, one, two, primes, powers of two, and one more; other dims are lengths."""

STRIDES = (1, 7, 5, 3)
"""Odd, so that dims go through all their sizes in different orders, large with small, and are not 0
together."""


def several(
    dims: Iterable[str], count: int, wishes: Mapping[str, tuple[int, ...]] = WISHES
) -> list[Sizes]:
    """`count` choices such that each dim has as many different sizes, those of least work first."""
    lists = {name: wishes.get(name, LENGTH)[:count] for name in dims}
    found = [
        {
            name: own[(place * step + step // 2) % len(own)]
            for (name, own), step in zip(lists.items(), STRIDES)
        }
        for place in range(count)
    ]
    return sorted(found, key=_work)


def _work(sizes: Sizes) -> int:
    return prod(max(size, 1) for size in sizes.values())


def verified_at(
    path: Path, model: Any, compiled: Any, dims: Iterable[str], count: int, budget: float
) -> dict[str, Any]:
    """Compare at `count` sizes of every dim, as far as `budget` seconds reach.

    Keys: "passed", "sizes" (compared), "refused" (by us: the model demands other sizes),
    "no_reference" (ONNX Runtime itself fails there), "left" (no time), "max_abs", and "detail" of
    the first failure.
    """
    reference = make_reference(str(path), "onnxruntime")
    result: dict[str, Any] = {"passed": True, "sizes": 0, "max_abs": 0.0, "detail": ""}
    counts = {"refused": 0, "no_reference": 0, "left": 0}
    end = time.monotonic() + budget
    for sizes in several(dims, count, _wishes(compiled)):
        if time.monotonic() > end:
            counts["left"] += 1
            continue
        if 0 in sizes.values() and _recurrent(model):
            counts["no_reference"] += 1
            continue
        arrays = light.make_inputs(model, **sizes)
        try:
            expected = reference.run(arrays)
        except ModelError:
            counts["no_reference"] += 1
            continue
        try:
            got = compiled.run(arrays)
        except DimError:
            counts["refused"] += 1
            continue
        for name, array in got.items():
            one = compare(name, array, expected[name], tolerance_of(name, expected[name]))
            result["max_abs"] = max(result["max_abs"], float(one.max_abs))
            if not one.passed and result["passed"]:
                told = one.problem or f"{one.failed} of {one.total} differ by {one.max_abs:.1e}"
                result |= {"passed": False, "detail": f"{name} at {sizes}: {told}"}
        result["sizes"] += 1
    return result | counts


def _recurrent(model: Any) -> bool:
    """Whether ONNX Runtime, on a batch of none, ends the process."""
    return any(node.op_type in ("LSTM", "GRU", "RNN") for node in model.graph.node)


def _wishes(compiled: Any) -> Mapping[str, tuple[int, ...]]:
    """Networks that demand multiples get those."""
    coarse = any(guard.op in ("divides", "==") for guard in compiled.metadata.guards)
    return {**WISHES, "height": COARSE_SIDE, "width": COARSE_SIDE} if coarse else WISHES
