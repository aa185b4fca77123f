"""Operators of ai.onnx.ml of which ONNX's own can say what they do, as in contrib.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, numpy_helper

from .contrib_body import Body, UnwrittenError

MAX_KEYS = 4096
"""Of a LabelEncoder, which compares with all of them."""


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


def _tree_classifier(b: Body) -> None:
    """The sums of its trees for each class. Where all weights are of one class out of two, they are
    of the second one, and a score against it follows."""
    labels, ids = _labels(b), b.attr("class_ids")
    kept = ("nodes_", "base_values")
    passed = {k: v for k, v in b.attributes.items() if k.startswith(kept)}
    for name in ("treeids", "nodeids", "weights", "weights_as_tensor"):
        if f"class_{name}" in b.attributes:
            passed[f"target_{name}"] = b.attr(f"class_{name}")
    one = set(ids) == {0} and len(labels) == 2
    if len(set(ids)) == 1 and not one:
        raise UnwrittenError  # implementations do not agree
    targets = [0] * len(ids) if one else ids
    count = 1 if one else len(labels)
    base = b.attr("base_values")
    if base and len(base) != count:
        raise UnwrittenError
    scores = b.op(
        "TreeEnsembleRegressor",
        b.input(0),
        domain="ai.onnx.ml",
        n_targets=count,
        target_ids=targets,
        **passed,
    )
    given = b.attr("class_weights_as_tensor")
    weights = b.attr("class_weights") if given is None else numpy_helper.to_array(given)
    shares = one and min(weights, default=0) >= 0
    _classified(b, scores, labels, count, shares, 0.5 if shares else 0.0)


def _linear_classifier(b: Body) -> None:
    """x @ coefficients' + intercepts"""
    labels = _labels(b)
    offsets = b.attr("intercepts")
    count = len(offsets) if offsets else len(labels)
    weights = np.float32(b.attr("coefficients")).reshape(count, -1).T
    x = b.op("Cast", b.input(0), to=TensorProto.FLOAT)
    y = b.op("MatMul", x, b.constant(weights, "float32"))
    if offsets:
        y = b.op("Add", y, b.constant(offsets, "float32"))
    if count not in (len(labels), 1) or (count == 1 and len(labels) != 2):
        raise UnwrittenError
    _classified(b, y, labels, count, True, 0.0)


def _labels(b: Body) -> list[int]:
    """The classes; texts only where nobody asks for the label of a row."""
    found = b.attr("classlabels_int64s") or b.attr("classlabels_ints")
    if found:
        return found
    texts = b.attr("classlabels_strings") or []
    if b.wants(0) or len(texts) < 2:
        raise UnwrittenError
    return list(range(len(texts)))


def _classified(
    b: Body, scores: str, labels: list[int], count: int, shares: bool, least: float
) -> None:
    """The label of the largest score, and the scores in the form that is asked for.

    Where `count` is 1, the score s is that of the second class, and that of the first one 1 - s
    if they are `shares` or -s, as ONNX Runtime has it; LOGISTIC takes -s in any case.
    """
    form = b.attr("post_transform", "NONE")
    if form not in ("NONE", "LOGISTIC", "SOFTMAX"):
        raise UnwrittenError
    if count > 1:
        chosen = b.op("ArgMax", scores, axis=1, keepdims=0)
    else:
        above = b.op("Greater", scores, b.constant(least, "float32"))
        chosen = b.op("Cast", above, to=TensorProto.INT64)
        chosen = b.op("Reshape", chosen, b.constant([-1]))
        one = b.constant(1.0 if shares and form != "LOGISTIC" else 0.0, "float32")
        scores = b.op("Concat", b.op("Sub", one, scores), scores, axis=1)
    if form == "LOGISTIC":
        scores = b.op("Sigmoid", scores)
    elif form == "SOFTMAX" and count > 1:
        scores = b.op("Softmax", scores, axis=1)
    b.result(0, b.op("Gather", b.constant(labels), chosen))
    b.result(1, scores)


def _label_encoder(b: Body) -> None:
    """values[k] where x is keys[k], else the default; numbers only."""
    keys, values = _listed(b, "keys"), _listed(b, "values")
    if len(keys) != len(values) or not 0 < len(keys) <= MAX_KEYS or (keys != keys).any():
        raise UnwrittenError
    dtype = str(values.dtype)
    default = b.attr("default_tensor")
    if default is None:
        name, otherwise = ("default_int64", -1) if dtype == "int64" else ("default_float", -0.0)
        other = np.array(b.attr(name, otherwise), dtype)
    else:
        other = numpy_helper.to_array(default).reshape(())
    known = b.constant(keys, str(keys.dtype))
    flat = b.op("Reshape", b.input(0), b.constant([-1, 1]))
    same = b.op("Cast", b.op("Equal", flat, known), to=TensorProto.INT32)
    place = b.op("ArgMax", same, axis=1, keepdims=1)
    found = b.op("Equal", b.op("Gather", known, place), flat)
    chosen = b.op("Gather", b.constant(values, dtype), place)
    y = b.op("Where", found, chosen, b.constant(other, dtype))
    b.result(0, b.op("Reshape", y, b.op("Shape", b.input(0))))


def _listed(b: Body, kind: str) -> np.ndarray:
    """The keys or values of a LabelEncoder."""
    for name, dtype in ((f"{kind}_int64s", np.int64), (f"{kind}_floats", np.float32)):
        if b.attr(name):
            return np.array(b.attr(name), dtype)
    tensor = b.attr(f"{kind}_tensor")
    found = np.array(()) if tensor is None else numpy_helper.to_array(tensor).reshape(-1)
    if found.dtype.kind not in "iuf":
        raise UnwrittenError
    return found


def _imputer(b: Body) -> None:
    """The value of its column for each element that is missing."""
    floats = b.attr("imputed_value_floats")
    values, dtype = (floats, "float32") if floats else (b.attr("imputed_value_int64s"), "int64")
    missing = b.attr("replaced_value_float" if floats else "replaced_value_int64", 0)
    if missing != missing:
        found = b.op("IsNaN", b.input(0))
    else:
        found = b.op("Equal", b.input(0), b.constant(missing, dtype))
    b.result(0, b.op("Where", found, b.constant(values, dtype), b.input(0)))


def _one_hot_encoder(b: Body) -> None:
    """1 in the place of its category, of numbers; nothing for one that is not known."""
    categories = b.attr("cats_int64s")
    if not categories or not b.attr("zeros", 1):
        raise UnwrittenError
    x = b.op("Cast", b.input(0), to=TensorProto.INT64)
    same = b.op("Equal", b.op("Reshape", x, b.constant([-1, 1])), b.constant(categories))
    shape = b.op("Concat", b.op("Shape", x), b.constant([len(categories)]), axis=0)
    b.result(0, b.op("Reshape", b.op("Cast", same, to=TensorProto.FLOAT), shape))


def _feature_vectorizer(b: Body) -> None:
    """Columns side by side, as float32."""
    parts = [b.op("Cast", name, to=TensorProto.FLOAT) for name in b.node.input]
    b.result(0, b.op("Concat", *parts, axis=1))


def _svm_regressor(b: Body) -> None:
    """sum of coefficient * kernel(x, support vector) + rho, of K = (g x.v + c)^d, tanh(g x.v + c)
    or exp(-g |x - v|^2)"""
    coefficients = np.float32(b.attr("coefficients")).reshape(-1, 1)
    count, form = b.attr("n_supports", 0), b.attr("kernel_type", "LINEAR")
    if b.attr("one_class", 0) or b.attr("post_transform", "NONE") != "NONE" or not count:
        raise UnwrittenError
    vectors = np.float32(b.attr("support_vectors")).reshape(count, -1)
    gamma, offset, degree = b.attr("kernel_params", [1.0, 0.0, 1.0])
    x = b.op("Cast", b.input(0), to=TensorProto.FLOAT)
    products = b.op("MatMul", x, b.constant(vectors.T, "float32"))
    if form == "RBF":
        ones = b.constant(np.ones((vectors.shape[1], 1)), "float32")
        own = b.op("MatMul", b.op("Mul", x, x), ones)
        lengths = b.constant((vectors.astype(np.float64) ** 2).sum(1), "float32")
        twice = b.op("Mul", products, b.constant(2.0, "float32"))
        apart = b.op("Sub", b.op("Add", own, lengths), twice)
        kernel = b.op("Exp", b.op("Mul", apart, b.constant(-gamma, "float32")))
    elif form in ("POLY", "SIGMOID"):
        scaled = b.op("Mul", products, b.constant(gamma, "float32"))
        kernel = b.op("Add", scaled, b.constant(offset, "float32"))
        if form == "SIGMOID":
            kernel = b.op("Tanh", kernel)
        else:
            kernel = b.op("Pow", kernel, b.constant(degree, "float32"))
    else:
        kernel = products
    y = b.op("MatMul", kernel, b.constant(coefficients, "float32"))
    b.result(0, b.op("Add", y, b.constant(b.attr("rho"), "float32")))


BODIES: dict[str, Callable[[Body], None]] = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "Binarizer": _binarizer,
    "FeatureVectorizer": _feature_vectorizer,
    "Imputer": _imputer,
    "LabelEncoder": _label_encoder,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "Normalizer": _normalizer,
    "OneHotEncoder": _one_hot_encoder,
    "SVMRegressor": _svm_regressor,
    "Scaler": _scaler,
    "TreeEnsembleClassifier": _tree_classifier,
}
