"""``tvmext reduce``: from a large model that fails to the few nodes that make it fail."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.cli import networks
from tests.cli.conftest import Call
from tvmext.reduction import reduce
from tvmext.reduction.minimize import minimize

IS_BAD = """
import sys, onnx
model = onnx.load(sys.argv[1])
onnx.checker.check_model(model)
made = {name: node.op_type for node in model.graph.node for name in node.output}
bad = any(n.op_type == "Tanh" and made.get(n.input[0]) == "Exp" for n in model.graph.node)
print("tanh of exp" if bad else "fine")
sys.exit(4 * bad)
"""


def chain(length: int, at: int) -> ModelProto:
    """`length` nodes one after another on ["n", 4], of which two from `at` on are Exp and Tanh."""
    kinds = ["Relu", "Neg", "Abs", "Sigmoid"]
    types = [kinds[k % 4] for k in range(length)]
    types[at : at + 2] = ["Exp", "Tanh"]
    nodes = [
        helper.make_node(kind, [f"v{k}"], [f"v{k + 1}"], name=f"{kind}_{k}")
        for k, kind in enumerate(types)
    ]
    return networks.model(nodes, {"v0": ["n", 4]}, {f"v{length}": ["n", 4]})


def test_a_thousand_nodes(tvmext: Call, tmp_path: Path) -> None:
    path, script, out = tmp_path / "m.onnx", tmp_path / "check.py", tmp_path / "small.onnx"
    path.write_bytes(chain(1000, 617).SerializeToString())
    script.write_text(IS_BAD)
    check = f"{sys.executable} {script} {{}}"
    result = tvmext("reduce", path, "--check", check, "-o", out, "--json")
    assert result.code == 0, result.err
    assert result.json["nodes"] == ["Exp_617", "Tanh_618"]
    assert result.json["exit_code"] == 4
    assert result.json["checks"] < 60
    small = onnx.load(out)
    onnx.checker.check_model(small, full_check=True)
    assert [value.name for value in small.graph.input] == ["v617"]
    assert small.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


def test_only_failures_that_match_count(tvmext: Call, tmp_path: Path) -> None:
    path, script = tmp_path / "m.onnx", tmp_path / "check.py"
    path.write_bytes(chain(4, 1).SerializeToString())
    script.write_text(IS_BAD)
    flags = ["--check", f"{sys.executable} {script}", "-o", tmp_path / "small.onnx"]
    assert tvmext("reduce", path, *flags, "--match", "tanh of").code == 0
    refused = tvmext("reduce", path, *flags, "--match", "something else")
    assert refused.code == 2
    assert "does not fail" in refused.err


@pytest.mark.parametrize(
    ("check", "said"),
    [("no-such-program {}", "no-such-program"), ("'", "quotation"), ("", "empty")],
)
def test_commands_that_cannot_run(tvmext: Call, tiny: Path, check: str, said: str) -> None:
    result = tvmext("reduce", tiny, "--check", check, "-o", tiny.with_name("out.onnx"))
    assert result.code == 2
    assert said in result.err
    assert not tiny.with_name("out.onnx").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--match", "["], "--match [: unterminated"),
        (["--dim", "bach=1"], "no dim 'bach'\n  try: its dims are batch"),
        (["--inputs", "{folder}/z.npz"], "no input 'z'\n  try: its inputs are x"),
    ],
)
def test_flags_that_do_not_fit(
    tvmext: Call, tiny: Path, tmp_path: Path, flags: list[str], said: str
) -> None:
    np.savez(tmp_path / "z.npz", z=np.ones(1))
    told = [flag.format(folder=tmp_path) for flag in flags]
    result = tvmext("reduce", tiny, "--check", "false", "-o", tmp_path / "r.onnx", *told)
    assert result.code == 2 and said in result.err
    assert "  try: " in result.err


def test_a_check_that_hangs_has_failed(tvmext: Call, tiny: Path, tmp_path: Path) -> None:
    check = f"{sys.executable} -c 'import time; time.sleep(60)'"
    flags = ["--timeout", "0.3", "-o", tmp_path / "out.onnx", "--json"]
    result = tvmext("reduce", tiny, "--check", check, *flags)
    assert result.code == 0, result.err
    assert len(result.json["nodes"]) == 1


def test_integers_inside_keep_their_values() -> None:
    """Where the part begins with a shape, it is the one that was seen."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Concat", ["shape", "one"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"], name="last"),
    ]
    model = networks.model(nodes, {"x": ["n", 4]}, {"y": ["n", 4, 1]}, {"one": np.array([1])})

    def fails(part: ModelProto) -> bool:
        return any(node.op_type == "Reshape" for node in part.graph.node)

    found = reduce(model, fails, {"x": np.zeros((3, 4), np.float32)})
    assert [node.op_type for node in found.graph.node] == ["Reshape"]
    (target,) = found.graph.initializer
    assert numpy_helper.to_array(target).tolist() == [3, 4, 1]
    assert [value.name for value in found.graph.input] == ["x"]


def test_weights_and_captures_come_along() -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["h", "w"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["n", 4])],
    )
    nodes = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body),
    ]
    weights = {"w": np.ones(4, np.float32), "yes": np.array(True)}
    model = networks.model(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, weights)
    found = reduce(model, lambda part: part.graph.node[-1].op_type == "If",
                   {"x": np.zeros((2, 4), np.float32)})  # fmt: skip
    assert [value.name for value in found.graph.input] == ["h"]
    assert {tensor.name for tensor in found.graph.initializer} == {"w", "yes"}


@given(st.lists(st.integers(0, 60), unique=True, min_size=1, max_size=5))
def test_what_is_left_is_just_what_fails(needed: list[int]) -> None:
    items = list(range(61))
    assert minimize(items, lambda part: set(needed) <= set(part)) == sorted(needed)
