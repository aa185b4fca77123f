"""Operators of ai.onnx.ml of which ONNX's own can say what they do, as in contrib.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from .contrib_body import Body, UnwrittenError


def _array_feature_extractor(b: Body) -> None:
    """Columns by index; a vector is one row."""
    index = b.op("Reshape", b.input(1), b.constant([-1]))
    rows = b.op("Gather", b.input(0), index, axis=-1)
    b.result(
        0, b.op("Reshape", rows, b.op("Concat", b.constant([-1]), b.op("Shape", index), axis=0))
    )


def _binarizer(b: Body) -> None:
    """1 where x > threshold, else 0."""
    threshold = b.op("CastLike", b.constant(b.attr("threshold", 0.0), "float32"), b.input(0))
    b.result(0, b.op("CastLike", b.op("Greater", b.input(0), threshold), b.input(0)))


def _scaler(b: Body) -> None:
    """(x - offset) * scale, in float32."""
    x = b.op("Cast", b.input(0), to=TensorProto.FLOAT)
    offset, scale = (b.constant(b.attr(name), "float32") for name in ("offset", "scale"))
    b.result(0, b.op("Mul", b.op("Sub", x, offset), scale))


def _normalizer(b: Body) -> None:
    """Each row over its largest element, the sum of its sizes, or its length."""
    x = b.op("Cast", b.input(0), to=TensorProto.FLOAT)
    kind = b.attr("norm", "MAX")
    if kind == "MAX":
        raise UnwrittenError  # implementations do not agree on negative elements
    b.result(0, b.op("LpNormalization", x, axis=-1, p=1 if kind == "L1" else 2))


def _linear_regressor(b: Body) -> None:
    """x @ coefficients' + intercepts"""
    if b.attr("post_transform", "NONE") != "NONE":
        raise UnwrittenError
    weights = np.float32(b.attr("coefficients")).reshape(b.attr("targets", 1), -1).T
    x = b.op("Cast", b.input(0), to=TensorProto.FLOAT)
    y = b.op("MatMul", x, b.constant(weights, "float32"))
    if b.attr("intercepts"):
        y = b.op("Add", y, b.constant(b.attr("intercepts"), "float32"))
    b.result(0, y)


BODIES: dict[str, Callable[[Body], None]] = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "Binarizer": _binarizer,
    "LinearRegressor": _linear_regressor,
    "Normalizer": _normalizer,
    "Scaler": _scaler,
}
