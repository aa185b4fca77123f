"""Shrink a model: the fewest nodes with which a check still fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import ModelProto, NodeProto, TensorProto, helper

from tvmext.errors import DimError, OptionError, TvmextError
from tvmext.frontends.model import TensorSpec
from tvmext.verification.inputs import random_inputs
from tvmext.verification.reference import make_reference

from .extract import Graph, Values, types
from .minimize import minimize

_INTEGERS = {
    getattr(TensorProto, name)
    for name in ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
}


def reduce(
    model: ModelProto,
    fails: Callable[[ModelProto], bool],
    inputs: Values,
    found: Callable[[ModelProto], None] = lambda _: None,
) -> ModelProto:
    """A part of `model` with few nodes for which `fails` is true.

    `inputs` are arrays by name for one run of the model in ONNX Runtime, which shows the integers
    inside; where that fails, a part that begins with integers takes them as inputs. `found` hears
    of every smaller model that fails, as soon as it is found. Raises OptionError if `fails` is
    false for `model`.
    """
    if not fails(model):
        raise OptionError(
            "the check does not fail for the model as it is",
            hint="a check that ends with an exit code other than 0 where the model is bad",
        )
    graph = Graph(model, _integers(model, inputs))
    smallest = model

    def failing(nodes: Sequence[NodeProto]) -> bool:
        nonlocal smallest
        part = graph.part(nodes)
        if part is None or not fails(part):
            return False
        if len(part.graph.node) < len(smallest.graph.node):
            smallest = part
            found(part)
        return True

    minimize(graph.nodes, failing)
    return smallest


def some_inputs(model: ModelProto, sizes: Mapping[str, int]) -> Values:
    """Random inputs for a model; dims that neither it nor `sizes` knows are 2.

    Raises DimError for a size of a dim that the inputs do not have.
    """
    shapes = [value.type.tensor_type.shape.dim for value in model.graph.input]
    dims = dict.fromkeys(dim.dim_param for shape in shapes for dim in shape if dim.dim_param)
    if unknown := [name for name in sizes if name not in dims]:
        raise DimError(
            f"the model has no dim '{unknown[0]}'", hint=f"its dims are {', '.join(dims) or 'none'}"
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    specs = []
    for value in model.graph.input:
        kind = value.type.tensor_type
        if value.name not in weights and kind.HasField("shape"):
            dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
            shape = [
                dim.dim_value if dim.HasField("dim_value") else sizes.get(dim.dim_param, 2)
                for dim in kind.shape.dim
            ]
            specs.append(TensorSpec(value.name, dtype, tuple(shape)))
    return random_inputs(specs, {}, {}, seed=0)


def _integers(model: ModelProto, inputs: Values) -> Values:
    """The integer and truth values inside of a model, as far as a run shows them."""
    known = types(model)
    names = [
        name
        for node in model.graph.node
        for name in node.output
        if name in known and known[name].tensor_type.elem_type in _INTEGERS
    ]
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in names:
        probe.graph.output.add(name=name, type=known[name])
    if not names:
        return {}
    try:
        return make_reference(probe.SerializeToString(), "auto").run(dict(inputs))
    except TvmextError:
        return {}
