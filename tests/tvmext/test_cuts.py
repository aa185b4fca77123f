"""Networks cut at their quantized values: what is wrong of itself, and what is amplified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from tests.tvmext.networks import FLOAT, broken, model_of
from tvmext.verification import reference as references
from tvmext.verification.compare import tolerance_of
from tvmext.verification.cuts import AMPLIFIED, first_wrong_step
from tvmext.verification.report import Divergence
from tvmext.verification.source import OnnxSource


def network() -> ModelProto:
    """x -> q -> Relu -> r, quantized, -> Neg: y."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Relu", ["d"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", "s", "z"], ["r"], name="again"),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["e"]),
        helper.make_node("Neg", ["e"], ["y"]),
    ]
    weights = {"s": np.array(0.5, np.float32), "z": np.array(0, np.int8)}
    model = model_of(nodes, {"x": (FLOAT, [4])}, {"y": (FLOAT, [4])}, weights)
    model.opset_import[0].version = 19  # the first that the evaluator of onnx quantizes in
    return model


def found(changed: Any) -> Divergence | None:
    """What is found where the evaluator of onnx plays the compiled model, of a changed one."""

    def compiler(model: ModelProto, _dims: Mapping[str, Any]) -> Any:
        run = references.make_reference(changed(model).SerializeToString(), "onnx").run
        return type("Evaluated", (), {"run": staticmethod(run)})

    x = {"x": np.array([-1, 2, -3, 4], np.float32)}
    return first_wrong_step(OnnxSource(network()), compiler, "onnx", x, {}, tolerance_of)


def moved(model: ModelProto, steps: int) -> ModelProto:
    """The same with the first value off by some steps."""
    changed = ModelProto()
    changed.CopyFrom(model)
    changed.graph.node[0].input[0] = "less"
    shift = helper.make_node("Sub", ["x", "by"], ["less"])
    by = helper.make_node("Constant", [], ["by"], value_float=0.5 * steps)
    nodes = [by, shift, *changed.graph.node]
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def test_the_first_wrong_value_is_found() -> None:
    wrong = found(broken)
    assert wrong is not None
    assert (wrong.value, wrong.node, wrong.op_type) == ("r", "again", "QuantizeLinear")
    assert wrong.values_compared == 3
    assert wrong.comparison is not None and wrong.comparison.max_abs == 6


def test_a_step_is_not_wrong_and_goes_no_further() -> None:
    right = found(lambda model: moved(model, 1))
    assert right is not None and (right.value, right.reason) == ("", AMPLIFIED)
    wrong = found(lambda model: moved(model, 2))
    assert wrong is not None and wrong.value == "q"


def test_without_quantized_values_there_is_nothing_to_cut() -> None:
    plain = model_of(
        [helper.make_node("Neg", ["x"], ["y"])], {"x": (FLOAT, [4])}, {"y": (FLOAT, [4])}, {}
    )
    arguments = ("onnx", {"x": np.zeros(4, np.float32)}, {}, tolerance_of)
    assert first_wrong_step(OnnxSource(plain), lambda *_: None, *arguments) is None
