"""Symbolic shapes of real exports: every dim and known element is what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.frontends.onnx.oracle import differences
from tests.zoo import light
from tvmext.errors import DimError
from tvmext.frontends.dims import parse
from tvmext.frontends.onnx.symbolic import infer

ZOO = Path(light.__file__).parent
EXPORTS = sorted(
    path.name.removesuffix(".onnx")
    for path in ZOO.glob("*.dyn.onnx")
    if not path.name.startswith("bert_fused")  # of operators that prepare.py writes out first
)
QUICK = {
    "bilstm.legacy.dyn",
    "llama_tiny.dynamo.dyn",
    "mamba.legacy.dyn",
    "mobilenet_v2.legacy.dyn",
    "qwen2_moe.legacy.dyn",
    "segformer_b0.dynamo.dyn",
    "t5_encoder.dynamo.dyn",
    "unet.legacy.dyn",
}
"""Exports small enough to run in every test run; the others are slow."""
SIZES = (
    {"batch": 3, "seq": 17, "past": 4, "text_batch": 2, "height": 64, "width": 96},
    {"batch": 1, "seq": 6, "past": 9, "text_batch": 4, "height": 100, "width": 44},
)


def graph_of(name: str) -> onnx.ModelProto:
    """The model without its weights."""
    return onnx.load(ZOO / f"{name}.onnx", load_external_data=False)


@pytest.mark.parametrize("name", EXPORTS)
def test_every_tensor_of_an_export_has_a_shape(name):
    shapes = infer(graph_of(name))
    assert [tensor for tensor in shapes.values if not shapes.is_known(tensor)] == []
    assert not shapes.unknown


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in EXPORTS]
)
def test_shapes_and_elements_are_those_of_onnx_runtime(name):
    model = light.load(ZOO / f"{name}.onnx")
    shapes = infer(model)
    for sizes in SIZES:
        assert differences(shapes, model, light.make_inputs(model, **sizes)) == []


def test_elements_are_shared_with_the_graph_that_computes_them():
    """The legacy exporter computes shapes by hundreds of nodes; nearly all of them are known."""
    model = graph_of("swin_tiny.legacy.dyn")
    shapes = infer(model)
    integer = [v for v in shapes.values.values() if v.dtype == "int64"]
    assert sum(value.data is not None for value in integer) > 0.9 * len(integer)


@pytest.mark.parametrize(
    ("name", "guards"),
    [
        ("bert_base.dynamo.dyn", {"seq >= 1", "seq <= 512"}),
        ("bert_base.legacy.dyn", {"seq >= 1", "seq <= 512"}),
        ("clip.legacy.dyn", {"seq <= 77", "seq*text_batch >= min(1, text_batch)"}),
        ("t5_encoder.dynamo.dyn", set()),
        ("segformer_b0.legacy.dyn", {"height >= 29", "width >= 29"}),
        (
            "unet.dynamo.dyn",
            {"4 divides height", "4 divides width", "height >= 4", "width >= 4"},
        ),
    ],
)
def test_guards_of_an_export(name, guards):
    assert {str(guard) for guard in infer(graph_of(name)).guards} == guards


@pytest.mark.parametrize(
    ("name", "output", "shape"),
    [
        ("gpt2.legacy.dyn", "present_0_k", ["batch", "12", "past + seq", "64"]),
        ("gpt2.dynamo.dyn", "logits", ["batch", "seq", "50257"]),
        ("clip.legacy.dyn", "logits_per_image", ["batch", "text_batch"]),
        (
            "segformer_b0.dynamo.dyn",
            "logits",
            ["batch", "150", "floordiv(height + 3, 4)", "floordiv(width + 3, 4)"],
        ),
        ("unet.legacy.dyn", "logits", ["batch", "4", "height", "width"]),
        ("resnet50.legacy.dyn", "logits", ["batch", "1000"]),
    ],
)
def test_output_shape_of_an_export(name, output, shape):
    assert [str(size) for size in infer(graph_of(name)).values[output].shape] == shape


def test_sizes_that_are_given_are_substituted():
    model = graph_of("gpt2.legacy.dyn")
    shapes = infer(model, {"batch": 2, "past": 0})
    assert shapes.values["present_0_k"].shape == (2, 12, parse("seq"), 64)
    assert list(shapes.dims) == ["seq", "total"]
    assert shapes.solved == {"batch": 2, "past": 0}


def test_a_range_that_is_given_removes_the_guard_it_implies():
    shapes = infer(graph_of("bert_base.legacy.dyn"), {"seq": (1, 16, 128)})
    assert shapes.guards == ()
    assert shapes.dims["seq"].range == "1:16:128"


def test_a_range_that_is_too_wide_keeps_the_guard():
    shapes = infer(graph_of("bert_base.legacy.dyn"), {"seq": (1, 16, 4096)})
    assert [str(guard) for guard in shapes.guards] == ["seq <= 512"]
    assert shapes.dims["seq"].range == "1:16:512"


def test_a_size_that_the_model_rules_out_names_the_node():
    with pytest.raises(DimError, match=r"(Add|Expand|Gather|Where) '.*' needs .*513"):
        infer(graph_of("bert_base.legacy.dyn"), {"seq": 513})


def test_a_dim_that_the_model_does_not_have_is_told_the_known_ones():
    with pytest.raises(DimError) as caught:
        infer(graph_of("bert_base.legacy.dyn"), {"bacth": 2})
    assert caught.value.hint == "its dims are batch, seq"
