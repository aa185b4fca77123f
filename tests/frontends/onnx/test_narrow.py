"""Types of 8, 4 and 2 bits against ml_dtypes, and bfloat16 at every level of optimisation."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

import tvmext
from tvmext.errors import UnsupportedError
from tvmext.frontends.storage import STORED
from tvmext.onnx_backend import InProcessBackend

FLOATS = ["float4_e2m1fn", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]


def casts(pairs: list[tuple[str, str]], counts: list[int]):
    """A model that casts each of its inputs, of the first type of a pair, to the second."""
    nodes, inputs, outputs = [], [], []
    for k, (pair, count) in enumerate(zip(pairs, counts)):
        before, after = (helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in pair)
        nodes.append(helper.make_node("Cast", [f"x{k}"], [f"y{k}"], to=after, saturate=0))
        inputs.append(helper.make_tensor_value_info(f"x{k}", before, [count]))
        outputs.append(helper.make_tensor_value_info(f"y{k}", after, [count]))
    graph = helper.make_graph(nodes, "casts", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)


def test_rounding_to_small_floats() -> None:
    """All halves: every value of the target, every tie, overflow, infinities, NaN."""
    x = np.arange(1 << 16).astype(np.uint16).view(np.float16).astype(np.float32)
    model = casts([("float32", target) for target in FLOATS], [x.size] * len(FLOATS))
    for got, target in zip(InProcessBackend.run_model(model, [x] * len(FLOATS)), FLOATS):
        with np.errstate(all="ignore"):
            want = x.astype(target)
        known = ~np.isnan(x) | (target != "float4_e2m1fn")
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(*(y[known].astype(np.float32) for y in (got, want)), target)


def test_reading_of_every_value() -> None:
    arrays = []
    for source in sorted(STORED):
        if "float" in source:
            count = 16 if "float4" in source else 256
            arrays.append(np.arange(count).astype(np.uint8).view(source))
        else:
            limits = ml_dtypes.iinfo(source)
            arrays.append(np.arange(limits.min, limits.max + 1).astype(source))
    model = casts([(x.dtype.name, "float32") for x in arrays], [x.size for x in arrays])
    for x, got in zip(arrays, InProcessBackend.run_model(model, arrays)):
        np.testing.assert_array_equal(got, x.astype(np.float32), x.dtype.name, strict=True)


def test_no_operator_computes_with_the_bytes() -> None:
    kind = TensorProto.FLOAT8E4M3FN
    value = [helper.make_tensor_value_info(name, kind, [2]) for name in "xyz"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "y"], ["z"])], "g", value[:2], value[2:]
    )
    with pytest.raises(UnsupportedError, match="float8_e4m3fn operands"):
        tvmext.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)]))


@pytest.mark.parametrize("level", [0, 3])
def test_brain_floats_round_after_each_operator(level: int) -> None:
    """A vectorized chain: exp, clip and sum, each result a bfloat16."""
    brain = TensorProto.BFLOAT16
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Max", ["e", "x"], ["m"]),
        helper.make_node("Add", ["m", "x"], ["y"]),
    ]
    info = [helper.make_tensor_value_info(name, brain, ["n", 33]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    x = np.random.default_rng(0).normal(0, 2, (5, 33)).astype(ml_dtypes.bfloat16)
    x[0, :2] = np.nan, np.inf
    got = tvmext.compile(model, options=tvmext.Options(opt_level=level)).run(x)["y"]
    want = np.maximum(np.exp(x), x) + x
    got, want = got.astype(np.float32), want.astype(np.float32)
    np.testing.assert_allclose(got, want, rtol=2**-7)
