"""ONNX -> Model: load, check, prepare, infer symbolic shapes, import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..dims import DimSpec
from ..model import Model
from .elements import with_elements

__all__ = ["load_onnx", "with_elements"]

if TYPE_CHECKING:
    from onnx import ModelProto


def load_onnx(
    model: str | Path | bytes | ModelProto,
    dims: Mapping[str, DimSpec] | None = None,
    name: str = "",
) -> Model:
    """An ONNX model with the sizes and ranges of `dims` bound; messages call it `name`.

    Raises ModelError if the model is damaged or not valid ONNX, DimError if `dims` do not fit it,
    UnsupportedError if it has operators that cannot be imported.
    """
    from . import check, driver, load, prepare, scalars, symbolic

    source = load.load(model, name)
    check.check(source)
    prepared = prepare.prepare(source, driver.operators())
    while True:  # each round has fewer Ifs and sequences
        prepared = prepare.with_tensor_outputs(prepared)
        sizes = scalars.find(prepared)
        shapes = symbolic.infer(prepared.model, dims, sizes)
        settled = prepare.settle(prepared, shapes)
        if settled is None:
            return driver.import_graph(prepared, shapes, sizes)
        prepared = settled
