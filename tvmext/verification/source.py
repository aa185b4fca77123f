"""The ONNX model as the references take it: a path, or bytes with the weights inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, numpy_helper

from tvmext.errors import ModelError
from tvmext.frontends.onnx.load import Source, load
from tvmext.runtime import CompiledModel


class OnnxSource:
    """A model given as a path, bytes or ModelProto."""

    def __init__(self, model: str | Path | bytes | ModelProto) -> None:
        """Raises ModelError if it is not an ONNX model."""
        self._given = model
        self._source: Source = load(model)

    @property
    def graph(self) -> onnx.GraphProto:
        """The main graph without its initializers, local functions inlined."""
        model = self._source.model
        return onnx.inliner.inline_local_functions(model).graph if model.functions else model.graph

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """The initializers by name."""
        return self._source.constants

    @property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shapes that the file states, None for a dynamic dim; weights included."""
        found: dict[str, tuple[int | None, ...]] = {}
        graph = self._source.model.graph
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                found[value.name] = tuple(
                    dim.dim_value if dim.HasField("dim_value") else None for dim in dims
                )
        return found | {name: array.shape for name, array in self._source.constants.items()}

    def dims_of(self, compiled: CompiledModel) -> dict[str, Any]:
        """The `dims` that `compiled` was compiled with: sizes of bound ones, ranges of the rest."""
        shapes = {spec.name: spec.shape for spec in compiled.inputs}
        bound: dict[str, Any] = {
            dim.dim_param: size
            for value in self._source.model.graph.input
            for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()))
            if dim.dim_param and isinstance(size, int)
        }
        free = compiled.metadata.dims.values()
        return bound | {dim.title: (dim.low, dim.high) for dim in free}

    def for_reference(self) -> str | bytes:
        """What ONNX Runtime and onnx.reference load."""
        if isinstance(self._given, ModelProto):
            return self._given.SerializeToString()
        return self._given if isinstance(self._given, bytes) else str(self._given)

    def with_outputs(self, names: Sequence[str]) -> ModelProto:
        """The model with these values of the main graph as its outputs, weights inside.

        Raises ModelError if that is too large for one file.
        """
        source = self._source
        if sum(array.nbytes for array in source.constants.values()) > onnx.checker.MAXIMUM_PROTOBUF:
            raise ModelError("values inside a model over 2 GB cannot be looked at one by one")
        model = ModelProto()
        model.CopyFrom(source.model)
        model.graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in source.constants.items()
        )
        known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
        del model.graph.output[:]
        model.graph.output.extend(known.get(name, ValueInfoProto(name=name)) for name in names)
        return model
