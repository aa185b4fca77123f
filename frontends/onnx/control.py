"""Bodies of If, Loop and Scan: a graph of its own, with what it takes from the graphs around it.

A body is prepared and its shapes are inferred as those of a network are. Its inputs are those that
it declares, then the values that it captures; the dims of the outside are dims of the body by the
same names. What is known of a captured value, elements too, is known inside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, helper

from ..dims import Expr, names_of, substitute
from . import graph as graphs
from . import tensors
from .load import Source
from .prepare import Prepared, prepare, settle
from .symbolic_facts import is_unknown, symbol_of
from .symbolic_node import Shape, Size, Value

DIMS = "tvmext dims"
"""An input of a body whose dims are the symbols of the outside; no tensor."""

if TYPE_CHECKING:
    from .symbolic import Shapes

INSIDE = "of_"
"""How a size that only the run knows begins inside of a body: there it is a dim like others."""


@dataclass(frozen=True)
class Body:
    """A graph ready for conversion; `captured` are values of the outside that it reads too."""

    prepared: Prepared
    shapes: Shapes
    dims: dict[str, Size]
    """What its dims are outside."""
    inputs: tuple[str, ...]
    captured: tuple[str, ...]

    def outward(self, shape: Shape | None) -> tuple[Size | None, ...] | None:
        """Dims in terms of the outside; None for those that only the body knows."""
        if shape is None:
            return None
        return tuple(
            substitute(size, self.dims) if names_of(size) <= self.dims.keys() else None
            for size in shape
        )

    @property
    def output_names(self) -> list[str]:
        return [output.name for output in self.prepared.model.graph.output]

    def outputs(self) -> list[Value]:
        values = self.shapes.values
        return [values[name] for name in self.output_names]


Bodies = dict[Hashable, "tuple[Body, Mapping[str, np.ndarray]]"]
"""The bodies of one network by what they depend on, with the arrays whose ids that has.

Each body around another looks at that one, when shapes are inferred and when it is converted, and
files have copies of one graph in many places: the same is analysed once."""


def analyse(
    graph: GraphProto,
    inputs: Sequence[tuple[str, Value]],
    scope: Mapping[str, Value],
    model: ModelProto,
    bodies: Bodies,
    constants: Mapping[str, np.ndarray] | None = None,
    varying: str = "",
    captured: Sequence[str] | None = None,
    extra: Sequence[tuple[str, Value]] = (),
) -> Body:
    """A body whose inputs have these values; `scope` and `constants` are those around it.

    Dims of inputs whose name begins with `varying` are the body's own. `captured` is what it
    captures, or more; `extra` are inputs that ONNX does not have.
    """
    constants = constants or {}
    captured = sorted(graphs.captures(graph)) if captured is None else captured
    given = {name: constants[name] for name in captured if name in constants}
    own = {tensor.name for tensor in graph.initializer} | given.keys()
    read = [(name, scope[name]) for name in captured if name not in own and name in scope]
    key = (
        hashlib.sha256(graph.SerializeToString(deterministic=True)).digest(),
        tuple(graphs.opsets(model).items()),
        tuple((name, id(array)) for name, array in given.items()),
        *(tuple((name, *_contents(v)) for name, v in values) for values in (inputs, extra, read)),
        varying,
    )
    if key not in bodies:
        found = _analysed(graph, [*inputs, *extra, *read], model, bodies, given, varying)
        names = (tuple(name for name, _ in values) for values in (inputs, read))
        bodies[key] = Body(*found, *names), given
    return bodies[key][0]


def _analysed(
    graph: GraphProto,
    named: Sequence[tuple[str, Value]],
    model: ModelProto,
    bodies: Bodies,
    given: Mapping[str, np.ndarray],
    varying: str,
) -> tuple[Prepared, Shapes, dict[str, Size]]:
    """The graph with the values of its inputs, its shapes, and what its dims are outside."""
    from . import driver, symbolic

    own = {t.name: tensors.to_array(t, f"'{t.name}'", None) for t in graph.initializer}
    outside = [x for x in _symbols(named) if not (varying and str(x).startswith(varying))]
    values = [(name, _inward(value)) for name, value in named]
    inner = ModelProto(ir_version=model.ir_version)
    inner.opset_import.extend(model.opset_import)
    inner.graph.CopyFrom(graph)
    del inner.graph.input[:], inner.graph.initializer[:]
    names = [inward(symbol) for symbol in outside]
    inner.graph.input.append(helper.make_tensor_value_info(DIMS, 7, [str(n) for n in names]))
    inner.graph.input.extend(_declared(name, value) for name, value in values)
    data = {name: value.data for name, value in values if value.data is not None}
    prepared = prepare(Source(inner, own | dict(given), graph.name or "a body"), driver.operators())
    while True:
        shapes = symbolic.infer(prepared.model, None, data, bodies)
        settled = settle(prepared, shapes)
        if settled is None:
            break
        prepared = settled
    return prepared, shapes, {str(inside): symbol for inside, symbol in zip(names, outside)}


def _contents(value: Value) -> tuple[Hashable, ...]:
    """What two equal values have in common; 1, 1.0 and True are three elements."""
    data = value.data
    if data is None:
        return value.dtype, value.shape
    return value.dtype, value.shape, data.shape, *((type(x).__name__, x) for x in data.flat)


def _symbols(values: Sequence[tuple[str, Value]]) -> list[Expr]:
    """The symbols of shapes and elements, in order."""
    found: dict[str, None] = {}
    for _, value in values:
        elements = value.data.flat if value.data is not None else ()
        for size in (*(value.shape or ()), *elements):
            if isinstance(size, Expr):
                found |= dict.fromkeys(sorted(names_of(size)))
    return [symbol_of(name) for name in found]


def inward(size: Size) -> Size:
    """A size of the outside as it is called inside."""
    renamed = {n: symbol_of(INSIDE + n) for n in names_of(size) if is_unknown(n)}
    return substitute(size, renamed) if renamed else size


def _inward(value: Value) -> Value:
    data: np.ndarray | None = None
    if value.data is not None:
        mapped = [inward(x) if isinstance(x, Expr) else x for x in value.data.flat]
        known = all(isinstance(x, bool | int | float | Expr) for x in mapped)
        data = np.empty(len(mapped), object)
        data[:] = mapped
        data = data.reshape(value.data.shape) if known else None
    shape = None if value.shape is None else tuple(map(inward, value.shape))
    return Value(value.dtype, shape, data)


def _declared(name: str, value: Value) -> onnx.ValueInfoProto:
    if value.dtype in ("", "str"):
        return helper.make_empty_tensor_value_info(name)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    shape = (
        None if value.shape is None else [n if isinstance(n, int) else str(n) for n in value.shape]
    )
    return helper.make_tensor_value_info(name, kind, shape)
