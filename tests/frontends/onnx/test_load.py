"""Files that are wrong, and weights in files of their own: what is read, and what is refused."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from tests.frontends.onnx.broken import external, model, node, value, weight, with_weight
from tvmext.errors import ModelError, TvmextError
from tvmext.frontends import load
from tvmext.frontends.onnx.load import load as load_source


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
