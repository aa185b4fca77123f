"""What is mutated: ONNX's own test models, and the zoo with its large weights as inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper

from ..conformance import cases

ZOO = Path(__file__).parents[2] / "tests" / "zoo"
KEPT_ELEMENTS = 4096
"""Weights up to this size stay what they are: index tables and sizes are among them."""


@dataclass(frozen=True)
class Entry:
    """A model as bytes; one mutant in so many is compiled, the others are imported; 0: none is."""

    name: str
    data: bytes
    compiled: int = 1


def small() -> list[Entry]:
    """ONNX's models of layers and blocks of the zoo: there at once."""
    found = [
        Entry(case.name, cases.model_of(case).SerializeToString())
        for suite in ("simple", "pytorch-operator", "pytorch-converted")
        for case in cases.load(suite)
    ]
    return found + [_of_zoo(path, 8) for path in sorted(ZOO.glob("vtc_*.onnx"))]


def nodes() -> list[Entry]:
    """ONNX's node tests: computed when they are listed, which takes some seconds."""
    return [Entry(case.name, case.model.SerializeToString()) for case in cases.load("node")]


def networks() -> list[Entry]:
    """The exports of the zoo."""
    return [_of_zoo(path, 0) for path in sorted(ZOO.glob("*.onnx")) if "vtc" not in path.name]


def _of_zoo(path: Path, compiled: int) -> Entry:
    return Entry(path.stem, without_weights(path).SerializeToString(), compiled)


def without_weights(path: Path) -> ModelProto:
    """A model of the zoo whose large weights are inputs."""
    from tests.zoo import light

    model = onnx.load(path, load_external_data=False)
    large = [t for t in model.graph.initializer if np.prod(t.dims) > KEPT_ELEMENTS]
    for tensor in large:
        if all(entry.value != "zlib" for entry in tensor.external_data):
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.initializer.remove(tensor)
            model.graph.input.append(value)
    return light.materialise(model)
