"""The module that an import makes: signature, weights, sizes from data, no shape arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from tests.frontends.onnx.stock import assert_matches, run
from tvmext.errors import DimError
from tvmext.frontends import load

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def parse(text: str, **weights: np.ndarray) -> ModelProto:
    proto = parser.parse_model(HEADER + text)
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    return proto


def calls(model) -> list[str]:
    """Names of the operators that main calls, in order."""
    blocks = model.mod["main"].body.blocks
    values = [binding.value for block in blocks for binding in block.bindings]
    return [value.op.name for value in values if hasattr(value, "op")]


def rename(proto: ModelProto, names: dict[str, str]) -> None:
    """Give values names that the text format cannot write."""
    graph = proto.graph
    for item in [*graph.input, *graph.output, *graph.initializer]:
        item.name = names.get(item.name, item.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def test_signature():
    proto = parse(
        "main (float[batch, 4] x1, int64[batch] b) => (float[batch, 3] y1, z)"
        "{ m = MatMul(x1, w0)  y1 = Add(m, w1)  z = Neg(b) }",
        w0=np.ones((4, 3), np.float32),
        w1=np.ones(3, np.float32),
    )
    rename(proto, {"x1": "x.1", "y1": "y.1", "w0": "w.0", "w1": "w.1"})
    model = load(proto)
    main = model.mod["main"]
    assert [spec.name for spec in model.inputs] == ["x.1", "b"]
    assert [str(spec) for spec in model.outputs] == ["y.1: float32[batch, 3]", "z: int64[batch]"]
    assert [var.name for var in main.params] == ["x_1", "b", "w_0", "w_1"]
    assert list(model.params) == ["w_0", "w_1"]
    assert int(main.attrs["num_input"]) == 2
    assert list(model.dims) == ["batch"]
    assert model.source == "ModelProto"


def test_names_stay_unique_and_are_identifiers():
    proto = parse("main (float[2] a, float[2] b) => (y) { y = Add(a, b) }")
    rename(proto, {"a": "x/1", "b": "x.1"})
    model = load(proto)
    assert [var.name for var in model.mod["main"].params] == ["x_1", "x_1_1"]
    assert [spec.name for spec in model.inputs] == ["x/1", "x.1"]


def test_the_nodes_behind_the_variables_of_main():
    model = load(parse("main (float[2] x) => (y) { a = Identity(x)  b = Mul(a, a)  y = Neg(b) }"))
    bindings = [b for block in model.mod["main"].body.blocks for b in block.bindings]
    found = [model.nodes[b.var.name] for b in bindings if b.var.name in model.nodes]
    assert [node.name for node in found] == ["a", "b", "y"]
    assert [node.op_type for node in found] == ["Identity", "Mul", "Neg"]


def test_one_weight_under_two_names_is_one_parameter():
    proto = parse(
        "main (float[2, 3] x) => (y) { v = Identity(w)  a = Add(x, w)  y = Mul(a, v) }",
        w=np.ones((2, 3), np.float32),
    )
    assert list(load(proto).params) == ["w"]


def test_numbers_are_constants_not_weights():
    proto = parse(
        "main (float[N, 3] x) => (y) { y = Mul(x, half) }", half=np.full((1, 1), 0.5, np.float32)
    )
    model = load(proto)
    assert not model.params
    assert_matches(model, proto, {"x": np.ones((2, 3), np.float32)})


SHAPE_ARITHMETIC = """
    main (float[batch, seq, 8] x) => (y)
    <int64[1] heads = {2}, int64[1] rest = {-1}, int64 first = {0}, int64 second = {1},
     int64[1] zero = {0}>
    {
        s = Shape(x)
        b = Gather(s, first)
        n = Gather(s, second)
        b1 = Unsqueeze(b, zero)
        n1 = Unsqueeze(n, zero)
        target = Concat <axis = 0> (b1, n1, heads, rest)
        split = Reshape(x, target)
        y = Transpose <perm = [0, 2, 1, 3]> (split)
    }"""


def test_shape_arithmetic_leaves_nothing_behind():
    proto = parse(SHAPE_ARITHMETIC)
    model = load(proto)
    assert calls(model) == ["relax.reshape", "relax.permute_dims"]
    assert str(model.outputs[0]) == "y: float32[batch, 2, seq, 4]"
    for shape in ((2, 3, 8), (1, 1, 8), (0, 3, 8)):
        if 0 not in shape:  # the reference cannot tell 0 from "keep"
            assert_matches(model, proto, {"x": np.ones(shape, np.float32)})


def test_a_dim_that_is_data():
    """Shape as a result is made from the dims at run time."""
    proto = parse("main (float[N, M] x) => (y) { y = Shape(x) }")
    assert_matches(load(proto), proto, {"x": np.zeros((5, 2), np.float32)})


def test_constant_and_input_as_outputs():
    proto = parse(
        "main (float[2, 3] x) => (a, b, c) { a = Identity(x)  b = Identity(w)  c = Relu(x) }",
        w=np.arange(40, dtype=np.float32),
    )
    assert_matches(load(proto), proto, {"x": -np.ones((2, 3), np.float32)})


class TestSizesFromData:
    proto = parse("""
        main (float[rows, 4] x, int32 position) => (y)
        <int64[1] zero = {0}, int64[1] one = {1}>
        { p = Cast <to = 7> (position)  q = Unsqueeze(p, zero)  end = Add(q, one)
          part = Slice(x, zero, end, zero)  y = ReduceSum <keepdims = 0> (part, zero) }""")
    rows = np.arange(24, dtype=np.float32).reshape(6, 4)

    @pytest.mark.parametrize("position", [0, 3, 5, 6, 1000])
    def test_each_value(self, position):
        feeds = {"x": self.rows, "position": np.int32(position)}
        assert_matches(load(self.proto, {"rows": 6}), self.proto, feeds)

    def test_what_is_no_size_fails_at_run_time(self):
        model = load(self.proto, {"rows": 6})
        with pytest.raises(RuntimeError):
            run(model, {"x": self.rows, "position": np.int32(-1)})


def test_dims_are_bound_and_limited():
    proto = parse("main (float[batch, seq] x) => (y) { y = Relu(x) }")
    model = load(proto, {"batch": 4, "seq": (1, 16)})
    assert model.inputs[0].shape[0] == 4
    assert list(model.dims) == ["seq"]
    assert (model.dims["seq"].low, model.dims["seq"].high) == (1, 16)
    with pytest.raises(DimError, match="no dim 'sequence'"):
        load(proto, {"sequence": 4})


def test_models_above_two_gigabytes(tmp_path: Path):
    """3 GB of external data: mapped, so that an import takes neither the time nor the memory."""
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(3 << 30)
    proto = parse("main (float[1, 16384] x) => (y) { a = MatMul(x, w0)  y = MatMul(a, w1) }")
    for index, columns in enumerate((1 << 14, 1 << 15)):
        tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[1 << 14, columns])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
        tensor.external_data.add(key="offset", value=str(index << 30))
        proto.graph.initializer.append(tensor)
    path = tmp_path / "large.onnx"
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    assert sum(array.nbytes for array in model.params.values()) == 3 << 30
    assert model.outputs[0].shape == (1, 1 << 15)


def test_old_models_whose_weights_are_also_inputs():
    proto = parse("main (float[2] x) => (y) { y = Add(x, w) }", w=np.float32([1, 2]))
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    model = load(proto)
    assert [spec.name for spec in model.inputs] == ["x"]
    assert_matches(model, proto, {"x": np.float32([5, 6])})
