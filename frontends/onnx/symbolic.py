"""Symbolic shapes, and values of small tensors, of every tensor of an ONNX graph.

`infer` walks the nodes in order. A rule per operator computes dtype, dims and known elements from
those of the inputs; operators without a rule go through ONNX's inference. What the rules learn
about the dims (see `Facts`) is substituted and the walk repeated until nothing new is learned.

The bodies of If, Loop and Scan are networks of their own (symbolic_control.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from tvmext.errors import InternalError, ModelError

from ..dims import Dim, DimSpec, Expr, Guard, bind_dims, names_of
from ..expr_atoms import divisors
from . import graph as graphs
from . import sequences, symbolic_control
from .control import Bodies
from .symbolic_contrib import RULES as CONTRIB
from .symbolic_elementwise import RULES as ELEMENTWISE
from .symbolic_facts import Facts, has_unknown, is_unknown
from .symbolic_fallback import OnnxInference
from .symbolic_fits import require_fit
from .symbolic_indexing import RULES as INDEXING
from .symbolic_inputs import InputTypes, constant_value, initializer_value
from .symbolic_ml import RULES as ML
from .symbolic_movement import RULES as MOVEMENT
from .symbolic_node import MAX_COUNT, MAX_RANK, MAX_SIZE, Node, Value
from .symbolic_numbers import Ratio
from .symbolic_spatial import RULES as SPATIAL
from .types import check_types

__all__ = ["Shapes", "Value", "infer"]

RULES = {**ELEMENTWISE, **INDEXING, **MOVEMENT, **SPATIAL}
CORE = ("", "ai.onnx")
_BY_DOMAIN = {**dict.fromkeys(CORE, RULES), "com.microsoft": CONTRIB, "ai.onnx.ml": ML}
CONTROL = ("If", "Loop", "Scan")
MAX_PASSES = 32
"""A pass is repeated while it learns something; real networks need two or three."""


@dataclass(frozen=True)
class Shapes:
    """What `infer` found.

    Expressions are over the names in `dims`, over scalars (see `infer`), and over `unknown`: sizes
    that only the run knows, such as the number of non-zero elements, each with the value and axis
    whose dim it is. A call is valid if every guard holds.
    """

    values: dict[str, Value]
    dims: dict[str, Dim]
    guards: tuple[Guard, ...]
    unknown: dict[str, tuple[str, int]] = field(default_factory=dict)
    late: tuple[Guard, ...] = ()
    """What must hold for sizes that only the run knows: checked while it runs."""
    solved: dict[str, int | Expr] = field(default_factory=dict)
    """Dims of the model that follow from others or were given by the user."""
    bodies: Bodies = field(default_factory=dict)
    """Those of its If, Loop and Scan."""

    def is_known(self, name: str) -> bool:
        """Whether rank and every dim of a value follow from the dims of the inputs."""
        shape = self.values[name].shape
        return shape is not None and not any(map(has_unknown, shape))


def infer(
    model: onnx.ModelProto,
    dims: Mapping[str, DimSpec] | None = None,
    scalars: Mapping[str, np.ndarray] | None = None,
    bodies: Bodies | None = None,
) -> Shapes:
    """Propagates symbolic shapes through the main graph of `model`, functions inlined.

    `dims` fixes ({"batch": 4}) or limits ({"seq": (1, 512)}) dims. `scalars` names the elements of
    small integer inputs that sizes depend on, such as a position: {input: object array of symbols}.
    Their values are taken to be sizes, hence >= 0. `bodies` are those analysed already.

    Raises DimError for a dim that the model does not have or that contradicts it, ModelError if the
    model contradicts itself.
    """
    inputs = InputTypes(model.graph)
    sizes, free = bind_dims(dims, inputs.dims)
    facts = Facts(free, inputs.rank, bool(dims), dict(sizes))
    known = {
        name: replace(inputs.values[name], data=data) for name, data in (scalars or {}).items()
    }
    for name, value in inputs.values.items():
        check_size(value, f"input '{name}'")
    walk = _Walk(model, inputs.values | known, facts, {} if bodies is None else bodies)
    for name, value in walk.constants.items():
        check_size(value, f"constant '{name}'")
    for _ in range(MAX_PASSES):
        before = facts.state
        values = walk.run()
        facts.restate()
        if facts.state == before:
            facts.use_suggestions()
        if facts.state == before:
            walk.require_sizes(values)
        if facts.state == before:
            return _result(values, facts, walk.bodies)
    raise InternalError(f"symbolic shapes do not settle in {MAX_PASSES} passes")


def _result(values: dict[str, Value], facts: Facts, bodies: Bodies) -> Shapes:
    values = {name: _complete(value) for name, value in values.items()}
    used = {name for v in values.values() for size in v.shape or () for name in names_of(size)}
    unknown = {str(size): place for place, size in facts.unknowns.items() if str(size) in used}
    solved = {name: size for name, size in facts.values.items() if not is_unknown(name)}
    late = tuple(
        g for g in facts.late_guards() if all(n in unknown for n in g.names if is_unknown(n))
    )
    return Shapes(values, facts.ranges, facts.guards, unknown, late, solved, bodies)


def _complete(value: Value) -> Value:
    """Elements are given only if all are known."""
    if value.data is None or not any(x is None or isinstance(x, Ratio) for x in value.data.flat):
        return value
    return replace(value, data=None)


class _Walk:
    """The nodes of a graph, ready to be propagated over and over."""

    def __init__(
        self,
        model: onnx.ModelProto,
        inputs: Mapping[str, Value],
        facts: Facts,
        bodies: Bodies,
    ) -> None:
        graph = model.graph
        self.model = model
        self.bodies = bodies
        self.inputs = inputs
        self.facts = facts
        self.opset = next((o.version for o in model.opset_import if o.domain in CORE), 1)
        self.inference = OnnxInference(model)
        self.ranks = {
            output.name: len(output.type.tensor_type.shape.dim)
            for output in graph.output
            if output.type.tensor_type.shape.dim  # none may also mean that nothing is said
        }
        self.constants = {t.name: initializer_value(t) for t in graph.initializer}
        self.nodes = [node for node in graph.node if graphs.core_op(node) != "Constant"]
        for node in graph.node:
            if graphs.core_op(node) == "Constant":
                self.constants[node.output[0]] = constant_value(node)

    def run(self) -> dict[str, Value]:
        """The values of every tensor with what is known now."""
        values = dict(self.constants)
        for name, value in self.inputs.items():
            shape = value.shape
            if shape is not None:
                shape = tuple(map(self.facts.simplify, shape))
            values[name] = Value(value.dtype, shape, value.data)
        for proto in self.nodes:
            inputs = [values.get(name) if name else None for name in proto.input]
            node = Node(proto, inputs, self.facts, self.opset)
            found = map(self._promised, proto.output, self._outputs(node, values))
            values.update(zip(proto.output, found))
        values.pop("", None)
        return values

    def _promised(self, name: str, value: Value) -> Value:
        """A value with as many dims as the model says of its output, where nothing else does."""
        if value.shape is not None or value.dtype in ("", "str") or name not in self.ranks:
            return value
        dims = tuple(self.facts.unknown(name, axis) for axis in range(self.ranks[name]))
        return Value(value.dtype, dims)

    def require_sizes(self, values: Mapping[str, Value]) -> None:
        """States that no size that is left is negative or divides by zero, which ends a process."""
        makers = {name: proto for proto in self.nodes for name in proto.output}
        stated: set[Expr] = set()
        for name, value in values.items():
            elements = value.data.flat if value.data is not None else ()
            dims = {size for size in value.shape or () if isinstance(size, Expr)} - stated
            stated |= dims
            least = dict.fromkeys(dims, 0)
            least |= dict.fromkeys(set().union(*map(divisors, (*dims, *elements))), 1)
            maker = makers.get(name)
            for size in sorted(least, key=str):
                where = Node(maker, (), self.facts, self.opset).where if maker else f"'{name}'"
                self.facts.assume_at_least(size, least[size], where)

    def _outputs(self, node: Node, values: Mapping[str, Value]) -> list[Value]:
        rule = _BY_DOMAIN.get(node.proto.domain, {}).get(node.op_type)
        found: Value | list[Value] | None
        check_types(node)
        if graphs.core_op(node.proto) in sequences.OPERATORS:
            return [Value("", None) for _ in node.proto.output]
        try:
            if not graphs.domain_of(node.proto):
                require_fit(node)
            if graphs.core_op(node.proto) in CONTROL:
                found = symbolic_control.infer(node, values, self.model, self.bodies)
            else:
                found = rule(node) if rule else None
            if found is None:
                found = self.inference.infer(node, values)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            inputs = ", ".join(str(value or "nothing") for value in node.inputs)
            raise ModelError(
                f"{node.where} cannot take {inputs} with its attributes",
                hint="check the model with onnx.checker",
            ) from error
        results = found if isinstance(found, list) else [found]
        for value in results:
            check_size(value, node.where)
        return results


def check_size(value: Value, where: str) -> None:
    """Raises ModelError if the value has more dims, or others, than a tensor can have."""
    sizes = [size for size in value.shape or () if isinstance(size, int)]
    if len(value.shape or ()) > MAX_RANK:
        what = f"{len(value.shape or ())} dims; at most {MAX_RANK} are possible"
    elif max(sizes, default=0) > MAX_SIZE or math.prod(filter(None, sizes)) > MAX_COUNT:
        what = f"dims {sizes}; no memory holds them"
    elif min(sizes, default=0) < 0:
        what = f"dims {sizes}; none can be negative"
    else:
        return
    hint = "smaller sizes of its dims; if the file has these, it is damaged: export it again"
    raise ModelError(f"{where}: a tensor of {what}", hint=hint)
