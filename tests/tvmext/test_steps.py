"""The steps of quantized values, and what a verification makes of them."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
from onnx import GraphProto, helper, numpy_helper

from tests.tvmext.networks import FLOAT, model_of
from tvmext import api, verification
from tvmext.verification.steps import STEPS, steps

SCALE = np.float32(0.25)


def graph_of(*nodes: str) -> GraphProto:
    """Nodes as ``"y = Relu x"``."""
    made = []
    for node in nodes:
        outputs, _, (kind, *inputs) = *node.partition(" = ")[:2], node.partition(" = ")[2].split()
        made.append(helper.make_node(kind, inputs, outputs.split()))
    return helper.make_graph(made, "graph", [], [])


def test_steps_are_those_of_the_last_quantization() -> None:
    graph = graph_of(
        "q = QuantizeLinear x s z",
        "moved = Transpose q",
        "y = DequantizeLinear moved s z",
        "positive = Relu y",
        "sums = Add y y",
        "w = DequantizeLinear weight s z",
        "c = QLinearConv moved s z weight s z s z",
        "rows = DequantizeLinear c several z",
        "unknown = DequantizeLinear c x z",
        "endless = DequantizeLinear c inf z",
    )
    inf = np.array(np.inf, np.float32)
    zero, several = np.array(3, np.uint8), np.array([0.5, 2, 1], np.float32)
    weights = {"s": SCALE, "z": zero, "several": several, "weight": zero, "inf": inf}
    found = steps(graph, weights)
    assert found == {"q": 1, "moved": 1, "y": 0.25, "positive": 0.25, "c": 1, "rows": 2}


def test_small_floats_and_float_results_have_no_step() -> None:
    graph = graph_of(
        "q = QuantizeLinear x s z", "g = QGemm x s z w s z", "d = QuantizeLinear x s t"
    )
    assert steps(graph, {"s": SCALE, "z": np.zeros((), ml_dtypes.float8_e4m3fn)}) == {}


def test_a_scale_may_be_a_constant_of_the_graph() -> None:
    graph = graph_of("q = QuantizeLinear x s", "y = DequantizeLinear q s")
    scale = helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(SCALE))
    assert steps(helper.make_graph([scale, *graph.node], "g", [], []), {}) == {"q": 1, "y": 0.25}


def test_a_quantized_output_may_be_off_by_some_steps(tmp_path: Path) -> None:
    nodes = list(graph_of("q = QuantizeLinear x s z", "y = DequantizeLinear q s z").node)
    weights = {"s": np.asarray(SCALE), "z": np.array(0, np.int8)}
    model = model_of(nodes, {"x": (FLOAT, [5])}, {"y": (FLOAT, [5])}, weights)
    compiled = api.compile(model)
    x = np.arange(5, dtype=np.float32)

    def passes(steps_off: float, **tolerance: float) -> bool:
        np.savez(tmp_path / "y.npz", y=x - np.float32(steps_off) * SCALE)
        arguments = {"inputs": {"x": x}, "reference": tmp_path / "y.npz", **tolerance}
        return verification.verify(model, compiled, **arguments).passed

    assert passes(0) and passes(STEPS)
    assert not passes(STEPS + 1)
    assert not passes(STEPS, atol=1e-4)
