"""Verification: what passes, what fails and where, and which inputs it makes up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.tvmext.networks import FLOAT, INT64, broken, model_of, network
from tvmext import api, verification
from tvmext.errors import DimError, InputError, ModelError, OptionError, ToolchainError
from tvmext.runtime import CompiledModel
from tvmext.verification import reference as references
from tvmext.verification.compare import tolerance_of
from tvmext.verification.source import OnnxSource


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return api.compile(network())


@pytest.fixture(scope="module")
def wrong() -> CompiledModel:
    return api.compile(broken(network()))


# ------------------------------------------------------------------ whole verifications


@pytest.mark.parametrize("reference", ["auto", "onnxruntime", "onnx"])
def test_a_right_model_passes_at_every_size(compiled: CompiledModel, reference: str) -> None:
    report = verification.verify(
        network(), compiled, dims={"batch": [1, 3, 7]}, reference=reference
    )
    assert report.passed
    assert [case.sizes for case in report.cases] == [{"batch": n} for n in (1, 3, 7)]
    assert [[o.shape for o in case.outputs] for case in report.cases] == [
        [(n, 4), (n, 8)] for n in (1, 3, 7)
    ]
    assert report.reference.startswith("onnx.reference" if reference == "onnx" else "ONNX Runtime")
    assert json.loads(json.dumps(report.to_json()))["passed"] is True


@pytest.mark.parametrize("form", ["path", "bytes"])
def test_models_as_path_and_bytes(compiled: CompiledModel, form: str, tmp_path: Path) -> None:
    data = network().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    model = data if form == "bytes" else tmp_path / "m.onnx"
    assert verification.verify(model, compiled).passed


@pytest.mark.parametrize("reference", ["onnxruntime", "onnx"])
def test_a_reference_that_cannot_take_the_inputs_says_so(
    compiled: CompiledModel, reference: str
) -> None:
    other = model_of(
        [helper.make_node("Reshape", ["ids", "shape"], ["y"])],
        {"ids": (INT64, ["batch"])},
        {"y": (INT64, [3, 5])},
        {"shape": np.array([3, 5])},
    )
    with pytest.raises(ModelError, match="cannot run the model on these inputs"):
        verification.verify(other, compiled, reference=reference)


@pytest.mark.parametrize("content", [b"junk", b""])
def test_a_file_that_holds_no_arrays(
    compiled: CompiledModel, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    np.save(tmp_path / "one.npy", np.ones(3))
    for name in ("x.npz", "one.npy"):
        with pytest.raises(InputError, match=r"it is not an \.npz file"):
            verification.verify(network(), compiled, inputs=tmp_path / name)


def test_a_wrong_model_fails_in_the_output_that_is_wrong(wrong: CompiledModel) -> None:
    report = verification.verify(network(), wrong, dims={"batch": 5})
    y, s = report.cases[0].outputs
    assert (report.passed, y.passed, s.passed) == (False, False, True)
    assert 0 < y.failed <= y.total == 20
    assert y.max_abs > 0.1
    assert y.where is not None
    assert y.got is not None and y.expected is not None
    assert abs(y.got - y.expected) > y.tolerance.atol
    assert report.divergence is None
    assert json.loads(json.dumps(report.to_json()))["passed"] is False


def test_the_first_value_that_differs_is_found(wrong: CompiledModel) -> None:
    def compiler(model: ModelProto, dims: Mapping[str, Any]) -> CompiledModel:
        return api.compile(broken(model), dims=dims)

    report = verification.verify(network(), wrong, compiler=compiler)
    found = report.divergence
    assert found is not None
    assert (found.value, found.node, found.op_type) == ("positive", "relu", "Relu")
    assert found.comparison is not None and not found.comparison.passed
    assert found.values_compared == 4


def test_a_difference_that_vanishes_under_observation_is_reported(wrong: CompiledModel) -> None:
    def compiler(model: ModelProto, dims: Mapping[str, Any]) -> CompiledModel:
        return api.compile(model, dims=dims)

    found = verification.verify(network(), wrong, compiler=compiler).divergence
    assert found is not None
    assert (found.value, found.values_compared) == ("", 4)
    assert "fusing" in found.reason


def test_the_search_narrows_down_a_long_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three values at a time; the evaluator of onnx plays the compiled model."""
    monkeypatch.setattr("tvmext.verification.divergence._AT_ONCE", 3)
    nodes = [helper.make_node("Neg", [f"v{i}"], [f"v{i + 1}"], name=f"n{i}") for i in range(40)]
    nodes[27].op_type = "Relu"
    chain = model_of(nodes, {"v0": (FLOAT, [4])}, {"v40": (FLOAT, [4])}, {})
    from tvmext.verification.divergence import Search

    def compiler(model: ModelProto, dims: Mapping[str, Any]) -> Any:
        run = references.make_reference(broken(model).SerializeToString(), "onnx").run
        return type("Evaluated", (), {"run": staticmethod(run)})

    x = {"v0": np.array([-1, 2, -3, 4], np.float32)}
    found = Search(OnnxSource(chain), compiler, "onnx", x, {}, tolerance_of).first_divergence("v40")
    assert (found.value, found.node) == ("v28", "n27")
    assert found.values_compared <= 12


def test_saved_outputs_are_a_reference(compiled: CompiledModel, tmp_path: Path) -> None:
    given = {"ids": np.array([3, 49, 0])}
    outputs = compiled.run(given)
    np.savez(tmp_path / "in.npz", **given)
    np.savez(tmp_path / "out.npz", **outputs)
    files = {"inputs": tmp_path / "in.npz", "reference": tmp_path / "out.npz"}
    report = verification.verify(network(), compiled, **files)
    assert report.passed
    assert report.cases[0].sizes == {"batch": 3}
    np.savez(tmp_path / "out.npz", y=outputs["y"] + 1)
    with pytest.raises(InputError, match=r"out\.npz has no output s"):
        verification.verify(network(), compiled, **files)
    np.savez(tmp_path / "out.npz", **{name: array + 1 for name, array in outputs.items()})
    assert not verification.verify(network(), compiled, **files).passed


def test_tolerances_for_one_output_or_for_all(
    compiled: CompiledModel, wrong: CompiledModel
) -> None:
    assert verification.verify(network(), wrong, atol=1e3).passed
    assert verification.verify(network(), wrong, atol={"y": 1e3}).passed
    assert not verification.verify(network(), wrong, atol={"s": 1e3}).passed
    with pytest.raises(OptionError, match="tolerance of 'y' is -1"):
        verification.verify(network(), compiled, rtol=-1)


def test_arguments_that_do_not_fit(compiled: CompiledModel, tmp_path: Path) -> None:
    def verify(**arguments: Any) -> Callable[[], Any]:
        return lambda: verification.verify(network(), compiled, **arguments)

    np.savez(tmp_path / "objects.npz", ids=np.array([object()]))
    (tmp_path / "text.npz").write_text("not a zip file")
    for call, error, message in (
        (verify(inputs={"idz": np.zeros(1)}), InputError, "no input idz"),
        (verify(inputs=tmp_path / "none.npz"), InputError, "cannot read inputs .* No such file"),
        (verify(inputs=tmp_path / "text.npz"), InputError, "cannot read inputs"),
        (verify(inputs=tmp_path / "objects.npz"), InputError, "cannot read inputs"),
        (verify(reference="tensorflow"), OptionError, "'tensorflow' is not a reference"),
        (verify(reference=tmp_path / "none.npz"), InputError, "cannot read expected outputs"),
        (verify(dims={"seq": 3}), DimError, "no dim 'seq'"),
        (verify(dims={"batch": -1}), DimError, "given as -1"),
    ):
        with pytest.raises(error, match=message):
            call()
    with pytest.raises(ModelError, match="only ONNX models"):
        verification.verify(tmp_path / "model.json", compiled)


def test_lists_of_sizes_go_together() -> None:
    from tvmext.verification.verify import _choices

    assert _choices({"a": [1, 2], "b": 5}) == [{"a": 1, "b": 5}, {"a": 2, "b": 5}]
    assert _choices({}) == [{}]
    with pytest.raises(DimError, match="'a' has 2 sizes, another dim has 3"):
        _choices({"a": [1, 2], "b": [1, 2, 3]})


# ------------------------------------------------------------------ references


def test_onnx_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "find_spec", lambda name: None)
    data = network().SerializeToString()
    with pytest.raises(ToolchainError, match="not installed"):
        references.make_reference(data, "onnxruntime")
    assert references.make_reference(data, "auto").title.startswith("onnx.reference")


def test_auto_falls_back_where_onnx_runtime_cannot_load_the_model() -> None:
    model = network()
    model.opset_import[0].version = onnx.defs.onnx_opset_version()
    model.ir_version = onnx.IR_VERSION
    data = model.SerializeToString()
    try:
        references.make_reference(data, "onnxruntime")
    except ModelError:
        assert references.make_reference(data, "auto").title.startswith("onnx.reference")
    else:
        pytest.skip("this ONNX Runtime knows the newest opset")


def test_bfloat16_goes_through_onnx_runtime() -> None:
    kind = TensorProto.BFLOAT16
    nodes = [helper.make_node("Transpose", ["x"], ["y"])]
    model = model_of(nodes, {"x": (kind, [2, 3])}, {"y": (kind, [3, 2])}, {})
    x = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    y = references.make_reference(model.SerializeToString(), "onnxruntime").run({"x": x})["y"]
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(y, x.T)


def test_products_of_bytes_do_not_saturate() -> None:
    """Two products of the largest bytes are more than 16 bits hold."""
    nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])]
    w = np.full((4, 8), 127, "int8")
    types = {"x": (TensorProto.UINT8, [2, 4])}, {"y": (TensorProto.INT32, [2, 8])}
    model = model_of(nodes, *types, {"w": w})
    x = np.full((2, 4), 255, "uint8")
    y = references.make_reference(model.SerializeToString(), "onnxruntime").run({"x": x})["y"]
    np.testing.assert_array_equal(y, np.full((2, 8), 4 * 127 * 255))
