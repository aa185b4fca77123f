"""Files and models that are wrong: each gives an error that says what, where and what to try."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tvmext.errors import ModelError, TvmextError, UnsupportedError
from tvmext.frontends import load
from tvmext.frontends.onnx.load import load as load_source

FLOAT = TensorProto.FLOAT


def value(name, dims, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, dims)


def model(nodes, inputs=None, outputs=None, weights=(), opset=20, ir=10, **fields) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", [2, 3])] if inputs is None else inputs,
        [value("y", None)] if outputs is None else outputs,
        list(weights),
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, **fields)


def node(op="Relu", inputs=("x",), outputs=("y",), **attributes):
    return helper.make_node(
        op, list(inputs), list(outputs), name=f"node_{outputs[0]}", **attributes
    )


def weight(name="w", array=None, **fields) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones((2, 3), np.float32) if array is None else array, name)
    for key, content in fields.items():
        if isinstance(content, list):
            del getattr(tensor, key)[:]
            getattr(tensor, key).extend(content)
        else:
            setattr(tensor, key, content)
    return tensor


def with_weight(tensor) -> ModelProto:
    return model([node("Add", ("x", "w"))], weights=[tensor])


def external(name="w", dims=(2, 3), **fields) -> TensorProto:
    tensor = TensorProto(name=name, dims=dims, data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    for key, content in fields.items():
        tensor.external_data.add(key=key, value=str(content))
    return tensor


def referring() -> onnx.NodeProto:
    made = node("Elu", alpha=1.0)
    made.attribute[0].ref_attr_name = "alpha"
    return made


def body(outputs: int) -> onnx.GraphProto:
    names = [f"b{k}" for k in range(outputs)]
    nodes = [helper.make_node("Constant", [], [name], value_float=1.0) for name in names]
    return helper.make_graph(nodes, "body", [], [value(name, []) for name in names])


def with_sparse(dims, places, kind=np.int64) -> ModelProto:
    proto = model([node("Add", ("x", "w"))])
    values = weight(array=np.ones(len(places), np.float32))
    indices = weight("", np.array(places, kind))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, dims))
    return proto


def calling(count: int, last: str) -> ModelProto:
    """Functions f0, f1, .. of which each calls the next one twice."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    proto = model([helper.make_node("f0", ["x"], ["y"], domain="own")])
    proto.opset_import.append(imports[1])
    for k in range(count):
        called = f"f{k + 1}" if k + 1 < count else last
        domain = "own" if called.startswith("f") else ""
        nodes = [
            helper.make_node(called, [a], [b], domain=domain) for a, b in (("a", "b"), ("b", "c"))
        ]
        proto.functions.append(helper.make_function("own", f"f{k}", ["a"], ["c"], nodes, imports))
    return proto


BAD_MODELS = {
    "empty proto": (ModelProto(), "holds no graph"),
    "empty graph": (model([], inputs=[], outputs=[]), "holds no graph"),
    "no outputs": (model([node()], outputs=[]), "has no outputs"),
    "opset 0": (model([node()], opset=0), "version 0"),
    "opset from the future": (model([node()], opset=10**9), "version 1000000000"),
    "no opset": (
        helper.make_model(model([node()]).graph, opset_imports=[helper.make_opsetid("a.b", 1)]),
        "which operator set",
    ),
    "negative opset": (model([node()], opset=-5), "version -5"),
    "negative dim of an input": (model([node()], inputs=[value("x", [2, -3])]), "negative dim -3"),
    "negative dim of a weight": (with_weight(weight(dims=[-2, -3])), "negative dim"),
    "input without a type": (
        model([node()], inputs=[onnx.ValueInfoProto(name="x")]),
        "not a tensor",
    ),
    "input without a rank": (model([node()], inputs=[value("x", None)]), "no shape"),
    "cycle": (
        model([node("Add", ("x", "b"), ("a",)), node("Relu", ("a",), ("b",)), node(inputs=("b",))]),
        "cycle: node_a <- node_b <- node_a",
    ),
    "a node that reads itself": (model([node("Add", ("x", "y"))]), "cycle: node_y <- node_y"),
    "missing input of a node": (model([node("Add", ("x", "w"))]), "'node_y' (Add) reads 'w'"),
    "output that nothing computes": (model([node(outputs=("z",))]), "computes the output 'y'"),
    "two nodes of one name of value": (model([node(), node("Exp")]), "defines 'y' twice"),
    "an output named as an input": (model([node(outputs=("x",)), node()]), "defines 'x' twice"),
    "two weights of one name": (
        model([node("Add", ("x", "w"))], weights=[weight(), weight()]),
        "two initializers named 'w'",
    ),
    "too few inputs": (model([node("Add")]), "node 'node_y' (Add) is not valid"),
    "unknown attribute": (model([node(color="blue")]), "node 'node_y' (Relu) is not valid"),
    "terabyte of dims": (with_weight(weight(dims=[1 << 20, 1 << 18])), "holds 24"),
    "dims beyond 64 bits": (with_weight(weight(dims=[1 << 40] * 4)), "holds 24"),
    "too little data": (with_weight(weight(raw_data=b"1234")), "need 24 bytes, but it holds 4"),
    "unknown data type": (with_weight(weight(data_type=99)), "unknown data type 99"),
    "IR from the future": (model([node()], ir=1 << 40), "version 1099511627776 of IR"),
    "input without a name": (model([node()], inputs=[value("", [2])]), "without a name"),
    "a needed input left out": (model([node("Sum", ("x", ""))]), "one of its inputs 'data_0'"),
    "a dim that no memory holds": (model([node()], inputs=[value("x", [1 << 40])]), "no memory"),
    "dims that no memory holds": (model([node()], inputs=[value("x", [1 << 30] * 2)]), "no memory"),
    "two hundred dims": (model([node()], inputs=[value("x", [1] * 200)]), "200 dims"),
    "an attribute of a function": (model([referring()]), "takes 'alpha' from a function"),
    "If without a branch": (
        model([node("If", ("x",), then_branch=body(1))], inputs=[value("x", [], 9)]),
        "attribute 'else_branch' is missing",
    ),
    "branches of other outputs": (
        model([node("If", ("x",), then_branch=body(1), else_branch=body(2))]),
        "has a else_branch of 0 inputs and 2 outputs",
    ),
    "sparse indices outside": (with_sparse([2, 3], [7]), "do not fit dims [2, 3]"),
    "sparse indices that are no integers": (with_sparse([2, 3], [0.5], float), "do not fit"),
    "sparse without dims": (with_sparse([], [[1, 0]]), "do not fit dims []"),
    "a function that calls itself": (calling(1, "f0"), "the function 'f0' calls itself"),
    "functions in functions": (calling(500, "Relu"), "more than 64 deep"),
    "no version of another domain": (
        helper.make_model(
            model([node()]).graph,
            opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("a.b", 0)],
        ),
        "version 0 of a.b",
    ),
    "functions that double": (calling(30, "Relu"), "more than 1048576 nodes"),
    "external without location": (with_weight(external(recipe="x")), "without a location"),
    "external data in memory": (with_weight(external(location="w.bin")), "given in memory"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_model(name):
    proto, message = BAD_MODELS[name]
    with pytest.raises(ModelError) as caught:
        load(proto)
    assert message in str(caught.value)
    assert caught.value.hint or "not a regular" in message


def test_unknown_operators_are_all_named():
    proto = model([
        node("Frobnicate", ("x",), ("a",)),
        helper.make_node("Twist", ["a"], ["b"], domain="my.ops", name="twist"),
        node("Relu", ("x",), ("c",)),
        helper.make_node("Twist", ["c"], ["d"], domain="my.ops", name="twist2"),
        node("Add", ("b", "d")),
    ])  # fmt: skip
    with pytest.raises(UnsupportedError) as caught:
        load(proto)
    assert [(op.op_type, op.domain, op.node) for op in caught.value.ops] == [
        ("Frobnicate", "", "node_a"),
        ("Twist", "my.ops", "twist2"),
    ]
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("size", [1, 7, 100])
def test_truncated_file(tmp_path: Path, size):
    whole = with_weight(weight()).SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: len(whole) * size // 101])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        load(path)


@pytest.mark.parametrize("seed", range(40))
def test_random_and_flipped_bytes_never_crash(seed):
    rng = np.random.default_rng(seed)
    data = bytearray(with_weight(weight()).SerializeToString())
    if seed % 4 == 0:
        data = bytearray(rng.bytes(200))
    for position in rng.integers(0, len(data), 1 + seed % 5):
        data[position] = rng.integers(0, 256)
    try:
        load(bytes(data))
    except TvmextError as error:
        assert error.exit_code in (2, 3)


@pytest.mark.parametrize("name", ["missing.onnx", "folder.onnx"])
def test_unreadable_path(tmp_path: Path, name):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelError, match=name):
        load(tmp_path / name)


def save(folder: Path, proto: ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


class TestExternalData:
    data = np.arange(6, dtype=np.float32)

    def check(self, folder: Path, **fields):
        """Load a model whose weight lies where `fields` say."""
        return load(save(folder, with_weight(external(**fields))))

    def test_inside_the_folder(self, tmp_path: Path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "w.bin").write_bytes(b"pad!" + self.data.tobytes())
        loaded = self.check(tmp_path, location="data/w.bin", offset=4, length=24)
        np.testing.assert_array_equal(loaded.params["w"].reshape(-1), self.data)

    def test_is_mapped_not_read(self, tmp_path: Path):
        (tmp_path / "w.bin").write_bytes(self.data.tobytes())
        source = load_source(save(tmp_path, with_weight(external(location="w.bin"))))
        assert isinstance(source.constants["w"].base.base, np.memmap)

    def test_empty_tensor_needs_no_bytes(self, tmp_path: Path):
        (tmp_path / "w.bin").write_bytes(b"")
        proto = with_weight(external(dims=(0, 3), location="w.bin"))
        assert load_source(save(tmp_path, proto)).constants["w"].shape == (0, 3)

    @pytest.mark.parametrize(
        "location",
        ["../secret.bin", "../../../../../etc/passwd", "/etc/passwd", "a/../../secret.bin"],
    )
    def test_outside_the_folder(self, tmp_path: Path, location):
        (tmp_path / "secret.bin").write_bytes(self.data.tobytes())
        folder = tmp_path / "model"
        folder.mkdir()
        with pytest.raises(ModelError, match="outside the model's folder"):
            self.check(folder, location=location)

    def test_link_out_of_the_folder(self, tmp_path: Path):
        (tmp_path / "secret.bin").write_bytes(self.data.tobytes())
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
        with pytest.raises(ModelError, match="outside the model's folder"):
            self.check(folder, location="w.bin")

    def test_link_inside_the_folder(self, tmp_path: Path):
        (tmp_path / "real.bin").write_bytes(self.data.tobytes())
        (tmp_path / "w.bin").symlink_to("real.bin")
        assert self.check(tmp_path, location="w.bin").params["w"].size == 6

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"location": "none.bin"}, "No such file"),
            ({"location": "."}, "outside|not a regular file"),
            ({"location": "w.bin", "offset": 8}, "which has 24"),
            ({"location": "w.bin", "offset": -4}, "needs bytes -4"),
            ({"location": "w.bin", "offset": "many"}, "not a number"),
            ({"location": "w.bin", "length": 20}, "need 24 bytes"),
            ({"location": "w.bin", "dims": (1 << 20, 1 << 20)}, "which has 24"),
            ({"location": "w.bin\0"}, "without a location"),
        ],
    )
    def test_damaged(self, tmp_path: Path, fields, message):
        (tmp_path / "w.bin").write_bytes(self.data.tobytes())
        with pytest.raises(ModelError, match=message):
            self.check(tmp_path, **fields)

    def test_pipe_is_not_opened(self, tmp_path: Path):
        os.mkfifo(tmp_path / "w.bin")
        with pytest.raises(ModelError, match="not a regular file"):
            self.check(tmp_path, location="w.bin")


def test_claims_of_size_cost_no_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "shape")
    huge = model(
        [node("ConstantOfShape", ("shape",), ("c",)), node("Add", ("x", "c"))],
        inputs=[value("x", [1, 1])],
        weights=[shape],
    )
    assert load(huge).outputs[0].shape == (1 << 20, 1 << 20)
    with pytest.raises(ModelError):
        load(with_weight(weight(dims=[1 << 30, 1 << 10])))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_sparse_weights_are_made_dense_within_bounds():
    def proto(dims):
        values = numpy_helper.from_array(np.array([5.0], np.float32), "w")
        indices = numpy_helper.from_array(np.array([4], np.int64), "i")
        made = model([node("Add", ("x", "w"))])
        made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, dims))
        return made

    np.testing.assert_array_equal(
        load(proto([2, 3])).params["w"], np.array([[0, 0, 0], [0, 5, 0]], np.float32)
    )
    with pytest.raises(ModelError, match="dense"):
        load(proto([1 << 20, 1 << 20]))


def test_zero_sized_dims_and_nan_weights_are_valid():
    nan = weight(array=np.full((2, 3), np.nan, np.float32))
    assert np.isnan(load(with_weight(nan)).params["w"]).all()
    empty = model([node()], inputs=[value("x", [0, 3])])
    assert load(empty).outputs[0].shape == (0, 3)


def test_bytes_proto_and_path_give_the_same(tmp_path: Path):
    proto = with_weight(weight())
    loaded = [load(proto), load(proto.SerializeToString()), load(str(save(tmp_path, proto)))]
    assert len({model.mod.script() for model in loaded}) == 1
    assert [model.source for model in loaded] == [
        "ModelProto",
        "bytes",
        str(tmp_path / "model.onnx"),
    ]


def test_the_given_proto_is_not_changed():
    proto = with_weight(weight())
    before = proto.SerializeToString(deterministic=True)
    load(proto)
    assert proto.SerializeToString(deterministic=True) == before


def test_what_is_no_model():
    with pytest.raises(ModelError, match="from a float"):
        load(1.5)


def test_a_file_name_too_long_for_the_system(tmp_path):
    onnx.save(with_weight(external(location="a" * 5000)), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="cannot read external data"):
        load(tmp_path / "m.onnx")
