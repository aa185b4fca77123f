"""Operators of ai.onnx.ml against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.frontends.onnx.stock import run
from tvmext.errors import UnsupportedError
from tvmext.frontends import load

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
RNG = np.random.default_rng(0)
X = RNG.standard_normal((17, 4)).astype(np.float32)


def model(op, arrays, outputs, version=3, **attributes):
    """One node, of inputs with any number of rows."""
    inputs = [
        helper.make_tensor_value_info(
            f"x{k}", helper.np_dtype_to_tensor_dtype(a.dtype), ["n", *a.shape[1:]]
        )
        for k, a in enumerate(arrays)
    ]
    results = [helper.make_tensor_value_info(f"y{k}", t, None) for k, t in enumerate(outputs)]
    names = [[value.name for value in values] for values in (inputs, results)]
    node = helper.make_node(op, *names, domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph([node], "one", inputs, results)
    imports = [helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def check(op, arrays, outputs=(FLOAT,), **attributes):
    proto = model(op, arrays, outputs, **attributes)
    feeds = {f"x{k}": a for k, a in enumerate(arrays)}
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    for got, want in zip(run(load(proto), feeds), expected, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def trees(number, classes, one_weight=True, modes=("BRANCH_LEQ",), positive=False):
    """Random trees of up to 15 nodes: the attributes of their nodes, and of their leaves."""
    nodes = {name: [] for name in ("tree", "node", "feature", "mode", "value", "yes", "no", "nan")}
    leaves = {name: [] for name in ("tree", "node", "id", "weight")}
    for tree in range(number):
        for node in range(15):
            leaf = node >= 7 or (node >= 3 and RNG.random() < 0.3)
            row = (tree, node, RNG.integers(4), "LEAF" if leaf else RNG.choice(modes))
            row += (RNG.choice(X.reshape(-1)), 0 if leaf else 2 * node + 1)
            row += (0 if leaf else 2 * node + 2, RNG.integers(2))
            for column, value in zip(nodes.values(), row):
                column.append(value)
            ids = [RNG.integers(classes)] if one_weight else range(classes)
            for target in ids if leaf else ():
                weight = abs(RNG.normal()) if positive else RNG.normal()
                for column, value in zip(leaves.values(), (tree, node, target, weight)):
                    column.append(value)
    keys = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
    attributes = {f"nodes_{key}": column for key, column in zip(keys, nodes.values())}
    attributes["nodes_missing_value_tracks_true"] = nodes["nan"]
    return attributes, leaves


def of(kind, leaves):
    keys = ("treeids", "nodeids", "ids", "weights")
    return {f"{kind}_{key}": column for key, column in zip(keys, leaves.values())}


def some_missing():
    x = X.copy()
    x[RNG.random(x.shape) < 0.2] = np.nan
    return x


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_regressor(aggregate):
    modes = ("BRANCH_LT",) if aggregate == "SUM" else ("BRANCH_GTE", "BRANCH_LEQ", "BRANCH_EQ")
    nodes, leaves = trees(5, 2, one_weight=aggregate == "AVERAGE", modes=modes)
    own = {"aggregate_function": aggregate, "n_targets": 2, "base_values": [0.5, -1.0]}
    check("TreeEnsembleRegressor", [some_missing()], **nodes, **of("target", leaves), **own)


@pytest.mark.parametrize("form", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("positive", [False, True])
def test_classifier(form, classes, positive):
    """Of one class all weights are those of the second of two, as boosted trees have it."""
    nodes, leaves = trees(4, classes, one_weight=classes == 1, positive=positive)
    own = {"classlabels_int64s": [7, 5, 9][: max(classes, 2)], "post_transform": form}
    check(
        "TreeEnsembleClassifier", [X], (INT, FLOAT), **nodes, **of("class", leaves), **own,
        base_values=RNG.normal(size=classes),
    )  # fmt: skip


def test_trees_that_lead_nowhere_are_refused():
    nodes, leaves = trees(2, 1)
    for name, place, value in (
        ("nodes_truenodeids", 0, 99),  # no such node
        ("nodes_truenodeids", 1, 0),  # a cycle
        ("nodes_featureids", 0, 4),  # no such feature
    ):
        broken = {**nodes, name: list(nodes[name])}
        broken[name][place] = value
        proto = model(
            "TreeEnsembleRegressor", [X], [FLOAT], **broken, **of("target", leaves), n_targets=1
        )
        with pytest.raises(UnsupportedError, match="TreeEnsembleRegressor"):
            load(proto)


NUMBERS = RNG.integers(0, 5, (17, 3))
W = RNG.normal(size=12).tolist()
SVM = {"n_supports": 3, "support_vectors": W, "coefficients": [0.5, -1.0, 2.0], "rho": [0.3]}
CASES = {
    "LinearClassifier": ("LinearClassifier", [X], {
        "coefficients": W, "intercepts": [0.1, 0.2, 0.3], "classlabels_ints": [4, 2, 8],
        "post_transform": "SOFTMAX"}),
    "LinearClassifier of one score": ("LinearClassifier", [X], {
        "coefficients": W[:4], "intercepts": [0.1], "classlabels_ints": [4, 2],
        "post_transform": "LOGISTIC"}),
    "LabelEncoder": ("LabelEncoder", [NUMBERS], {
        "keys_int64s": [0, 2, 3], "values_floats": [0.5, -1.5, 4.0], "default_float": 9.0}),
    "Imputer": ("Imputer", [some_missing()], {
        "imputed_value_floats": [1.0, 2.0, 3.0, 4.0], "replaced_value_float": float("nan")}),
    "OneHotEncoder": ("OneHotEncoder", [NUMBERS], {"cats_int64s": [4, 0, 2]}),
    "FeatureVectorizer": ("FeatureVectorizer", [X, X[:, :1]], {"inputdimensions": [4, 1]}),
    **{f"SVMRegressor {kind}": ("SVMRegressor", [X], {
        **SVM, "kernel_type": kind, "kernel_params": [0.4, 0.2, 3.0]})
        for kind in ("LINEAR", "POLY", "RBF", "SIGMOID")},
    "Scaler": ("Scaler", [X], {"offset": [0.1] * 4, "scale": W[:4]}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator(name):
    op, arrays, attributes = CASES[name]
    check(op, arrays, (INT, FLOAT) if "Classifier" in op else (FLOAT,), **attributes)
