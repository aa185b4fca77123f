"""What a model file declares: its signature, its operators, and what input shapes say of dims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tvmext import frontends
from tvmext.errors import DimError, InputError, UnsupportedError, UnsupportedOp
from tvmext.frontends.dims import Dim, DimSpec, Expr, Guard, as_symbol, symbol
from tvmext.frontends.model import TensorSpec

if TYPE_CHECKING:
    from onnx import GraphProto, TypeProto


@dataclass(frozen=True)
class Description:
    """A model before compilation.

    `operators` counts nodes by operator, those in subgraphs included; `unsupported` are the nodes
    that cannot be compiled. With such nodes the shapes of outputs are the declared ones, and there
    are no guards.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: Mapping[str, Dim]
    guards: tuple[Guard, ...]
    operators: Mapping[str, int]
    unsupported: tuple[UnsupportedOp, ...] = ()


def describe(path: Path, trust: bool, model_format: str | None = None) -> Description:
    """Read the model at `path`. Raises ModelError, or OptionError for a program without `trust`."""
    try:
        model = frontends.load(path, trust=trust, model_format=model_format)
    except UnsupportedError as error:
        inputs, outputs, dims = _declared(path)
        return Description(inputs, outputs, dims, (), _operators(path), error.ops)
    is_onnx = (model_format or frontends.format_of(path)) == "onnx"
    operators = _operators(path) if is_onnx else {}
    return Description(model.inputs, model.outputs, model.dims, model.guards, operators)


def bind_shapes(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dims: Mapping[str, DimSpec],
    *,
    trust: bool,
    model_format: str | None,
) -> dict[str, DimSpec]:
    """`dims`, and a size for every dim of the model's inputs that `shapes` gives by input name.

    Raises InputError for an input, a rank or a fixed size that the model does not have, DimError
    if a dim gets two sizes.
    """
    if (model_format or frontends.format_of(path)) == "onnx":
        inputs, _, _ = _declared(path)
    else:
        inputs = frontends.load(path, trust=trust, model_format=model_format).inputs
    return bind_inputs(inputs, shapes, dims)


def bind_inputs(
    inputs: Sequence[TensorSpec],
    shapes: Mapping[str, tuple[int, ...]],
    dims: Mapping[str, DimSpec],
) -> dict[str, DimSpec]:
    """Like `bind_shapes`, of a model or library with these inputs."""
    specs = {spec.name: spec for spec in inputs}
    bound = dict(dims)
    for name, shape in shapes.items():
        if name not in specs:
            raise InputError(
                f"--input-shapes: the model has no input '{name}'",
                hint=f"its inputs are {', '.join(map(str, inputs))}",
            )
        _bind(specs[name], shape, bound)
    return bound


def _bind(spec: TensorSpec, shape: tuple[int, ...], bound: dict[str, DimSpec]) -> None:
    fits = len(shape) == len(spec.shape) and all(
        size == dim for size, dim in zip(shape, spec.shape) if isinstance(dim, int)
    )
    if not fits:
        raise InputError(
            f"--input-shapes: '{spec.name}' cannot have the shape {list(shape)}",
            hint=f"the model declares {spec}",
        )
    for size, dim in zip(shape, spec.shape):
        name = as_symbol(dim)
        if name is not None and bound.setdefault(name, size) != size:
            raise DimError(
                f"dim '{name}' is given as {bound[name]} and as {size} in '{spec.name}'",
                hint="give each dim one size",
            )


def _declared(
    path: Path,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], dict[str, Dim]]:
    """Inputs, outputs and dims of an ONNX file as it declares them."""
    from tvmext.frontends.onnx import check, load
    from tvmext.frontends.onnx.symbolic_inputs import InputTypes

    source = load.load(path)
    check.check(source)
    graph = source.model.graph
    types = InputTypes(graph)
    inputs = tuple(
        TensorSpec(name, value.dtype, value.shape or ())
        for name, value in types.values.items()
        if name not in source.constants
    )
    outputs = tuple(
        TensorSpec(value.name, *_declared_type(value.type.tensor_type)) for value in graph.output
    )
    return inputs, outputs, types.dims


def _declared_type(tensor: TypeProto.Tensor) -> tuple[str, tuple[int | Expr, ...]]:
    """(dtype, shape) as the graph writes them, which need not be right."""
    from onnx import helper

    dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else "?"
    shape = [
        dim.dim_value if dim.HasField("dim_value") else symbol(dim.dim_param or "?")
        for dim in tensor.shape.dim
    ]
    return dtype, tuple(shape)


def _operators(path: Path) -> dict[str, int]:
    """{operator: number of nodes} of an ONNX file, the most frequent first."""
    from tvmext.frontends.onnx import load

    count = Counter(_names(load.load(path).model.graph))
    return dict(sorted(count.items(), key=lambda item: (-item[1], item[0])))


def _names(graph: GraphProto) -> Iterator[str]:
    from tvmext.frontends.onnx.graph import domain_of, subgraphs

    for node in graph.node:
        domain = domain_of(node)
        yield f"{domain}::{node.op_type}" if domain else node.op_type
        for body in subgraphs(node):
            yield from _names(body)
