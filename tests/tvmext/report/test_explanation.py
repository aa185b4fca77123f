"""What is told of small networks: fates, bytes, memory, nodes, and the regions to draw."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper

from tests.browser import needs_browser, seen
from tests.cli import networks
from tvmext.build import CompileRequest
from tvmext.cli import console
from tvmext.report import Explanation, explain_here
from tvmext.report.html import page
from tvmext.schedules.brief import brief
from tvmext.schedules.cpu.chosen import Chosen
from tvmext.schedules.prices import Candidate, KernelPrices


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"n_{op}", **attributes)


def explained(nodes: list[NodeProto], shape: networks.Shape, **weights: np.ndarray) -> Explanation:
    """Of a network from x to y, whose rank is that of x."""
    free: networks.Shape = [None] * len(shape)
    return of(networks.model(nodes, {"x": shape}, {"y": free}, weights))


def of(model: ModelProto) -> Explanation:
    """`tvmext.explain` in this process."""
    with TemporaryDirectory() as folder:
        path, output = Path(folder) / "model.onnx", Path(folder) / "explanation"
        path.write_bytes(model.SerializeToString())
        explain_here(CompileRequest(str(path), str(output)), lambda *_: None)
        found = pickle.loads(output.read_bytes())
    assert isinstance(found, Explanation)
    return found


CHAIN = [
    node("Relu", "x", "a"),
    node("Transpose", "a", "b", perm=[1, 0]),
    node("Exp", "b", "c"),
    node("Softmax", "c", "y"),
]


@pytest.mark.parametrize("size", [8, "n"])
def test_a_map_in_the_middle_is_read_through(size: int | str) -> None:
    found = explained(CHAIN, [size, 8])
    (operator,) = found.operators
    assert (operator.node, operator.op_type, operator.fate) == ("n_Transpose", "Transpose", "read")
    assert found.ours.movement_kernels_left == ()
    assert found.ours.movement_operators == found.stock.movement_operators == 1
    assert found.ours.bytes_moved == 0
    assert found.sizes == ({"n": 64} if size == "n" else {})


def test_a_copy_that_the_interface_forces_is_kept() -> None:
    found = explained([node("Transpose", "x", "y", perm=[1, 0])], [4, 6])
    (operator,) = found.operators
    (kernel,) = found.ours.movement_kernels_left
    assert operator.fate == "kept"
    assert operator.bytes == kernel.bytes == 2 * 4 * 6 * 4
    assert (kernel.reason, kernel.nodes) == ("forced", ("n_Transpose",))
    assert found.stock.bytes_moved == found.ours.bytes_moved == kernel.bytes
    assert operator.bytes_saved == 0


def test_reshapes_between_kernels_are_views() -> None:
    nodes = [node("Softmax", "x", "a"), node("Reshape", "a s", "b"), node("Softmax", "b", "y")]
    found = explained(nodes, [4, 6], s=np.array([6, 4]))
    assert [operator.fate for operator in found.operators] == ["view"]
    assert found.ours.kernels == 2
    assert found.ours.planned_bytes == 4 * 6 * 4


def test_operators_that_cancel_leave_nothing() -> None:
    nodes = [
        node("Softmax", "x", "a"),
        node("Transpose", "a", "b", perm=[1, 0]),
        node("Transpose", "b", "c", perm=[1, 0]),
        node("MatMul", "c w", "y"),
    ]
    found = explained(nodes, [4, 6], w=np.ones((6, 3), np.float32))
    assert len(found.operators) == 2
    assert found.ours.movement_kernels_left == ()
    assert found.fates["kept"] == 0


def test_a_kernel_reads_what_it_loads() -> None:
    """Three rows of a table, not the table."""
    nodes = [node("Gather", "w x", "y")]
    net = networks.model(nodes, {"x": [3]}, {"y": [3, 4]}, {"w": np.ones((1000, 4), np.float32)})
    net.graph.input[0].type.tensor_type.elem_type = 7
    found = of(net)
    assert found.ours.kernel_bytes == 3 * 8 + 3 * 4 * 4 + 3 * 4 * 4


def test_savings_by_operator_add_up() -> None:
    found = explained([*CHAIN[:3], node("Transpose", "c", "y", perm=[1, 0])], [16, 8])
    saved = sum(operator.bytes_saved for operator in found.operators)
    assert saved == found.stock.bytes_moved - found.ours.bytes_moved


def test_layers_that_look_alike_are_one_region() -> None:
    nodes = []
    for k in range(5):
        nodes += [
            node("Transpose", f"x{k}" if k else "x", f"t{k}", perm=[1, 0]),
            node("Exp", f"t{k}", f"e{k}"),
            node("Softmax", f"e{k}", f"x{k + 1}"),
        ]
    nodes[-1].output[0] = "y"
    found = explained(nodes, [8, 8])
    assert sum(len(region.nodes) for region in found.regions) == 5
    assert max(len(region.nodes) for region in found.regions) > 1


def test_json_and_page() -> None:
    found = explained([*CHAIN[:3], node("Transpose", "c", "y", perm=[1, 0])], [16, 8])
    told = json.loads(json.dumps(console.plain(found.to_json())))
    assert told["movement_operators"] == 2
    for side in ("stock", "ours"):
        for key in ("movement_operators", "movement_kernels_left", "bytes_moved", "planned_bytes"):
            assert key in told[side]
    text = page(found)
    assert "n_Transpose" in text
    assert not re.search(r"(src|href)=|@import|url\(http", text)


PRICES = KernelPrices(
    "<product>",
    "gemm",
    2,
    Candidate({"tile": {"rows": 6, "vectors": 2, "lanes": 16}, "ahead": 4}, 1.5e-3),
    (Candidate({"tile": {"rows": 8, "vectors": 2, "lanes": 16}, "ahead": 4}, 2.5e-6),),
    7,
    (Chosen("rows", "6x2x16", ((1, 6), (9, 9))),),
    "measured by <whom>",
)


def test_prices_stand_in_the_page() -> None:
    """The pick, what the next best does differently, the variants, and why."""
    found = explained([node("Softmax", "x", "y")], [4, 6])
    (price,) = found.prices
    assert brief(price.pick.decision) in page(found) and "Variants" not in page(found)
    text = page(replace(found, prices=(PRICES,)))
    for told in ("1,500", "tile 6x2x16, ahead 4", "2.5", "tile 8x2x16", "1-6, 9"):
        assert f">{told}<" in text, told
    assert "gemm, 2 calls, 100.0%" in text
    assert "&lt;product&gt;" in text and "measured by &lt;whom&gt;" in text


@needs_browser
def test_the_page_fits_screens(tmp_path: Path) -> None:
    """Nothing but drawings and tables scrolls sideways."""
    found = explained([*CHAIN[:3], node("Transpose", "c", "y", perm=[1, 0])], [16, 8])
    found = replace(found, prices=(PRICES,))
    for shown in seen(page(found), "#prices, #operators, .cards", tmp_path):
        assert shown.width <= shown.screen and not shown.cut
        assert len(shown.parts) == 3 and min(shown.parts) > 300


def test_a_page_without_movement() -> None:
    found = explained([node("Relu", "x", "y")], [4])
    assert found.operators == ()
    assert "No operator" in page(found)


def test_names_in_a_page_are_text() -> None:
    nodes = [node("Transpose", "x", "y", perm=[1, 0])]
    nodes[0].name = "<script>alert(1)</script>"
    assert "<script>alert" not in page(explained(nodes, [4, 6]))
