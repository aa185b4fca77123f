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
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tvmext import api, verification
from tvmext.errors import DimError, InputError, ModelError, OptionError, ToolchainError
from tvmext.frontends.dims import Dim, Guard, parse
from tvmext.frontends.model import TensorSpec
from tvmext.runtime import CompiledModel
from tvmext.verification import compare as comparing
from tvmext.verification import reference as references
from tvmext.verification.compare import EXACT, Tolerance, compare, tolerance_of
from tvmext.verification.inputs import choose_sizes, random_inputs
from tvmext.verification.limits import index_limits
from tvmext.verification.source import OnnxSource

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[Any]]],
    outputs: Mapping[str, tuple[int, list[Any]]],
    weights: Mapping[str, np.ndarray],
) -> ModelProto:
    def values(specs: Mapping[str, tuple[int, list[Any]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, *spec) for name, spec in specs.items()]

    graph = helper.make_graph(
        nodes,
        "network",
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def network() -> ModelProto:
    """ids -> embedding -> Add -> Relu -> MatMul: y, and the sum before it: s."""
    rng = np.random.default_rng(0)
    return model_of(
        [
            helper.make_node("Gather", ["table", "ids"], ["embedded"], name="embed"),
            helper.make_node("Add", ["embedded", "bias"], ["s"], name="shift"),
            helper.make_node("Relu", ["s"], ["positive"], name="relu"),
            helper.make_node("MatMul", ["positive", "weight"], ["y"], name="project"),
        ],
        {"ids": (INT64, ["batch"])},
        {"y": (FLOAT, ["batch", 4]), "s": (FLOAT, ["batch", 8])},
        {
            "table": rng.standard_normal((50, 8), dtype=np.float32),
            "bias": np.full(8, 0.5, np.float32),
            "weight": rng.standard_normal((8, 4), dtype=np.float32),
        },
    )


def broken(model: ModelProto) -> ModelProto:
    """The same with Abs where Relu was."""
    changed = ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Abs"
    return changed


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
    found = Search(OnnxSource(chain), compiler, "onnx", x, {}, None, None).first_divergence("v40")
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
        (verify(dims={"batch": -1}), DimError, "outside its range"),
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


# ------------------------------------------------------------------ comparisons


def compared(got: Any, expected: Any, rtol: float = 0, atol: float = 0, dtype: str = "float32"):
    return compare("y", np.array(got, dtype), np.array(expected, dtype), Tolerance(rtol, atol))


def test_the_worst_element_is_the_one_furthest_outside_the_tolerance() -> None:
    result = compared([[1, 2.5], [100.5, 4]], [[1, 2], [100, 4]], rtol=0.01)
    assert (result.failed, result.where) == (1, (0, 1))
    assert (result.got, result.expected) == (2.5, 2.0)
    assert result.max_abs == 0.5
    assert result.max_rel == 0.25


def test_the_tolerance_is_relative_plus_absolute() -> None:
    assert compared([10.5], [10], rtol=0.03, atol=0.25).passed
    assert not compared([10.5], [10], rtol=0.02, atol=0.25).passed
    assert compared([10], [10]).where is None


def test_nan_and_infinity() -> None:
    nan, inf = np.nan, np.inf
    expected = [nan, inf, -inf, 1, 2, 3, inf]
    assert compared(expected, expected).passed
    result = compared([nan, inf, -inf, nan, inf, 3, -inf], expected, rtol=1, atol=1)
    assert (result.failed, result.nan_mismatches, result.inf_mismatches) == (3, 1, 2)
    assert result.max_abs == 0
    assert result.where == (3,)


def test_a_report_is_strict_json() -> None:
    report = verification.Report("file", (verification.Case({}, (compared([np.nan, 1], [2, 0]),)),))
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["cases"][0]["outputs"][0]["got"] == "nan"


def test_integers_and_booleans_are_exact() -> None:
    assert tolerance_of("y", "int64") == tolerance_of("y", "bool") == EXACT
    big = 2**60
    result = compared([big, big + 1], [big, big], dtype="int64")
    assert (result.failed, result.where) == (1, (1,))
    assert compared([True, False], [True, True], dtype="bool").failed == 1


def test_other_shapes_and_dtypes_are_a_problem() -> None:
    result = compare("y", np.zeros((2, 3), "f4"), np.zeros((3, 2), "f4"), EXACT)
    assert not result.passed
    assert result.problem == "got float32[2, 3], expected float32[3, 2]"
    result = compare("y", np.zeros(2, "f8"), np.zeros(2, "f4"), EXACT)
    assert result.problem == "got float64[2], expected float32[2]"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "complex64", "uint8"])
def test_every_dtype_is_compared(dtype: str) -> None:
    kind = np.dtype(dtype)
    got, expected = np.array([1, 2, 5]).astype(kind), np.array([1, 2, 3]).astype(kind)
    result = compare("y", got, expected, tolerance_of("y", dtype))
    assert (result.failed, result.where, result.max_abs) == (1, (2,), 2)


def test_scalars_and_empty_arrays() -> None:
    assert compared(1, 2).where == ()
    assert compared(np.zeros((0, 3)), np.zeros((0, 3))).passed


def test_large_arrays_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_CHUNK", 4)
    expected = np.arange(23, dtype=np.float32).reshape(23, 1)
    got = expected.copy()
    got[[2, 13, 22]] += [[1], [5], [2]]
    result = compare("y", got, expected, Tolerance(0, 0.5))
    assert (result.failed, result.max_abs, result.where) == (3, 5, (13, 0))


# ------------------------------------------------------------------ inputs


def test_indices_are_in_range_through_casts_and_reshapes() -> None:
    model = model_of(
        [
            helper.make_node("Cast", ["ids"], ["wide"], to=INT64),
            helper.make_node("Unsqueeze", ["wide", "axes"], ["column"]),
            helper.make_node("Gather", ["table", "column"], ["rows"]),
            helper.make_node("Gather", ["small", "wide"], ["more"]),
            helper.make_node("Gather", ["table", "places"], ["columns"], axis=1),
            helper.make_node("Cast", ["mask"], ["float_mask"], to=FLOAT),
            helper.make_node("Mul", ["rows", "float_mask"], ["y"]),
        ],
        {
            "ids": (TensorProto.INT32, ["n"]),
            "places": (INT64, [2]),
            "mask": (INT64, ["n", 1, 1]),
            "pixels": (TensorProto.UINT8, ["n", 3]),
        },
        {"y": (FLOAT, None)},
        {
            "table": np.zeros((30, 7), np.float32),
            "small": np.zeros((20, 7), np.float32),
            "axes": np.array([1]),
        },
    )
    source = OnnxSource(model)
    limits = index_limits(source.graph, source.shapes)
    assert limits == {"ids": 20, "places": 7, "pixels": 256}


def test_random_inputs_are_in_range_and_repeatable(compiled: CompiledModel) -> None:
    def draw(seed: int) -> np.ndarray:
        return random_inputs(compiled.inputs, {"batch": 5000}, {"ids": 50}, seed)["ids"]

    assert draw(0).shape == (5000,)
    assert set(draw(0)) == set(range(50))
    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_masks_start_with_a_one() -> None:
    shapes = {"mask": ("n", 1), "flags": ("n", 4), "count": (), "empty": ("n", 0)}
    for dtype in ("bool", "int64", "int32"):
        specs = [
            TensorSpec(name, dtype, tuple(parse(str(dim)) for dim in shape))
            for name, shape in shapes.items()
        ]
        drawn = random_inputs(specs, {"n": 500}, {}, seed=0)
        assert drawn["mask"].all()
        assert drawn["flags"][:, 0].all()
        assert set(drawn["flags"].reshape(-1).tolist()) == {0, 1}
        assert {name: str(array.dtype) for name, array in drawn.items()} == dict.fromkeys(
            shapes, dtype
        )


class Facts:
    """As much of a compiled model as the choice of sizes looks at."""

    def __init__(self, dims: list[Dim], *guards: Guard) -> None:
        self.metadata = self
        self.dims = {dim.name: dim for dim in dims}
        self.guards = guards


def test_sizes_fit_ranges_guards_and_what_is_fixed() -> None:
    dims = [Dim("h", 1, 512), Dim("w", 1, 512), Dim("batch", opt=6), Dim("seq", 100, 200)]
    guards = (Guard(32, "divides", parse("h")), Guard(parse("h"), "<=", parse("2*w")))
    sizes = choose_sizes({"w": 50}, Facts(dims, *guards))  # type: ignore[arg-type]
    assert sizes == {"h": 32, "w": 50, "batch": 6, "seq": 128}


def test_dims_get_different_sizes() -> None:
    sizes = choose_sizes({}, Facts([Dim(name) for name in "abc"]))  # type: ignore[arg-type]
    assert len(set(sizes.values())) == 3


def test_sizes_that_cannot_be_found() -> None:
    facts = Facts([Dim("n", label="N")], Guard(1000, "divides", parse("n + 1")))
    with pytest.raises(DimError, match="no sizes of N that satisfy 1000 divides n \\+ 1"):
        choose_sizes({}, facts)  # type: ignore[arg-type]
