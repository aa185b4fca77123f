"""The check of networks that nobody prepared: the dims of an export, and the table."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tools.networks import check


def saved(path: Path, **inputs: tuple[int, list[int | str | None]]) -> onnx.ModelProto:
    """Takes the first input as it is."""
    values = [helper.make_tensor_value_info(name, *given) for name, given in inputs.items()]
    output = helper.make_tensor_value_info("y", *next(iter(inputs.values())))
    node = helper.make_node("Identity", [values[0].name], ["y"])
    graph = helper.make_graph([node], "g", values, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return model


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "expected"),
    [
        ("ids", TensorProto.INT64, ["batch", "seq"], {"batch": "batch", "seq": "seq"}),
        ("ids", TensorProto.INT64, ["s33", "s50"], {"s33": "batch", "s50": "seq"}),
        ("x", TensorProto.FLOAT, ["s0", 3, "s1", 8], {"s0": "batch", "s1": "height"}),
        ("states", TensorProto.FLOAT, ["s0", "s1", 8], {"s0": "batch", "s1": "source"}),
        ("input_values", TensorProto.FLOAT, ["s0", "s1"], {"s0": "batch", "s1": "samples"}),
        ("x", TensorProto.FLOAT, [None, 6], {"x_0": "rows"}),
        ("x", TensorProto.FLOAT, [2, 6], {}),
    ],
)
def test_each_free_dim_has_a_kind(
    tmp_path: Path,
    name: str,
    dtype: int,
    shape: list[int | str | None],
    expected: dict[str, str],
) -> None:
    assert check.kinds(saved(tmp_path / "m.onnx", **{name: (dtype, shape)})) == expected


def test_a_network_is_checked_in_both_modes(tmp_path: Path) -> None:
    saved(tmp_path / "m.onnx", x=(TensorProto.FLOAT, [None, 6]))
    assert list(check.cases(tmp_path, "*")) == [("m", "static"), ("m", "dynamic")]
    assert check.measure(tmp_path / "m.onnx", "dynamic")["sizes"] == 3
    assert check.measure(tmp_path / "m.onnx", "static")["passed"]


def test_the_table_has_a_line_for_each_network() -> None:
    passed = {"network": "a", "mode": "static", "exit_code": 0, "max_abs": 1e-6}
    wrong = {"network": "a", "mode": "dynamic", "exit_code": 1, "max_abs": 0.5, "detail": "y"}
    crashed = {"network": "b", "mode": "static", "exit_code": -11, "error": "ended with -11"}
    lines = check.table([passed, wrong, crashed]).splitlines()[2:]
    assert lines == [
        "| a | passed | exit 1: y | 5.0e-01 |",
        "| b | exit -11: ended with -11 | - | 0.0e+00 |",
    ]
