"""What a converter sees: `Call`, one ONNX node with its shapes, known values and Relax operands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from onnx import ModelProto, NodeProto
from tvm import relax
from tvm.sym import Analyzer

from tvmext.errors import UnsupportedOp

from ..dims import Expr, as_symbol, names_of
from ..model import Node
from ..reshape import reshape
from ..storage import to_stored
from . import graph as graphs
from .prim import Prims

if TYPE_CHECKING:
    from .symbolic import Shapes, Value

Dims = tuple[int | Expr, ...]
Result: TypeAlias = "relax.Expr | Sequence[relax.Expr]"
Converter = Callable[["Call"], Result]

CONST_ELEMENTS = 16
"""Integer constants up to this size, and all single elements, are Relax constants, not weights."""


class DeclinedError(Exception):
    """A converter cannot do this node; the text says why."""


class BodyError(DeclinedError):
    """What a body has that cannot be converted is on the list already."""


class Builder:
    """The function under construction: values by ONNX name, weights, Relax BlockBuilder."""

    def __init__(
        self,
        shapes: Shapes,
        constants: dict[str, np.ndarray],
        versions: dict[str, int],
        scalars: frozenset[str] = frozenset(),
        *,
        model: ModelProto,
        inside: bool = False,
    ) -> None:
        """`inside`: of a body, whose weights are constants from the start."""
        self.bb = relax.BlockBuilder()
        self.shapes = shapes
        self.constants = dict(constants)
        self.versions = versions
        self.scalars = scalars
        self.model = model
        self.inside = inside
        self.prims = Prims([*shapes.dims, *sorted(scalars), *shapes.unknown])
        self.defined: set[str] = set()
        """The sizes that only the run knows of which the program has one by now."""
        self.unsupported: list[UnsupportedOp] = []
        self.values: dict[str, relax.Expr] = {}
        self.weights: dict[str, tuple[relax.Var, np.ndarray]] = {}
        self.nodes: dict[str, Node] = {}
        self.matched: dict[str, str] = {}
        """By variable whose sizes are matched: for whom, which an error of the run names."""
        self._names: set[str] = set()
        self._shared: dict[tuple, relax.Var] = {}
        self._analyzer = Analyzer()

    def value(self, name: str) -> Value:
        return self.shapes.values[name]

    def known(self, name: str) -> np.ndarray | None:
        """The elements of a value if all of them are known before run time."""
        if name in self.constants:
            return self.constants[name]
        data = self.value(name).data
        return None if data is None or any(x is None for x in data.flat) else data

    def has_defined(self, sizes: Iterable[int | Expr]) -> bool:
        """Whether the program has what the sizes consist of by now."""
        names = frozenset().union(*map(names_of, sizes))
        return all(name in self.defined for name in names if name in self.shapes.unknown)

    def define(self, sizes: Iterable[int | Expr]) -> None:
        """The sizes are matched with those of a value; declines if that does not tell them."""
        sizes = list(sizes)
        bare = {name for size in sizes if (name := as_symbol(size))}
        self.defined |= bare & self.shapes.unknown.keys()
        if not self.has_defined(sizes):
            raise DeclinedError("the shape of its result depends on data")

    def match(self, value: relax.Expr, ty: relax.Type, where: str) -> relax.Var:
        """The value as one of this type; a run in which its sizes are others fails, at `where`."""
        if isinstance(value, relax.Var):
            self.matched.setdefault(value.name, where)
        return self.bb.match_cast(value, ty)

    def proves_equal(self, found: Any, dim: int | Expr) -> bool:
        """Whether TVM can prove that its own dim is the one that shape inference found."""
        return bool(self._analyzer.can_prove_equal(found, self.prims.prim(dim)))

    def unique(self, name: str) -> str:
        """`name` as an identifier that no other parameter of the function has."""
        base = "".join(c if c.isalnum() and c.isascii() else "_" for c in name) or "value"
        base = f"_{base}" if base[0].isdigit() else base
        result, count = base, 0
        while result in self._names:
            count += 1
            result = f"{base}_{count}"
        self._names.add(result)
        return result

    def tensor(self, name: str) -> relax.Expr:
        """The value as a tensor: computed, a weight, a constant, or made from known dims."""
        if name not in self.values:
            if name in self.constants:
                self.values[name] = self.weight(name, self.constants[name])
            else:
                self.values[name] = self._from_known(name)
        return self.values[name]

    def weight(self, name: str, array: np.ndarray) -> relax.Expr:
        """A Relax constant if the array is small and shape-like, else a parameter of main.

        Arrays that are the same memory under several names become one parameter.
        """
        if array.dtype == object:
            raise DeclinedError(f"'{name}' holds strings")
        array = to_stored(array)
        if not array.size:  # TVM's machine cannot load a constant without elements
            return self.bb.emit(relax.op.zeros(array.shape, str(array.dtype)))
        integer = array.dtype.kind in "iub"
        if self.inside or array.size == 1 or (integer and 0 < array.size <= CONST_ELEMENTS):
            return relax.const(np.ascontiguousarray(array).reshape(array.shape), str(array.dtype))
        memory = (array.ctypes.data, array.shape, array.strides, array.dtype)
        if memory not in self._shared:
            key = self.unique(name)
            var = relax.Var(key, relax.TensorType(array.shape, str(array.dtype)))
            self.weights[key] = (var, array)
            self._shared[memory] = var
        return self._shared[memory]

    def _from_known(self, name: str) -> relax.Expr:
        value, data = self.value(name), self.known(name)
        if data is None:
            raise DeclinedError(f"'{name}' is no tensor here, or a sequence of unknown length")
        if not any(isinstance(element, Expr) for element in data.flat):
            return self.weight(name, data.astype(value.dtype))
        tensor = self.bb.emit(relax.op.shape_to_tensor(self.prims.shape(list(data.flat))))
        if data.ndim != 1:
            tensor = self.bb.emit(reshape(tensor, data.shape))
        if value.dtype != "int64":
            tensor = self.bb.emit(relax.op.astype(tensor, value.dtype))
        return tensor


class Call:
    """One node to convert. Positions count inputs; an omitted input is absent."""

    def __init__(self, builder: Builder, node: NodeProto) -> None:
        self.builder = builder
        self.node = node
        self.op = node.op_type
        self.domain = graphs.domain_of(node)
        self.version = builder.versions.get(self.domain, 1)
        self.attributes = graphs.attributes(node)

    def __len__(self) -> int:
        return len(self.node.input)

    def attr(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        return index < len(self.node.input) and bool(self.node.input[index])

    def wants(self, index: int) -> bool:
        """Whether output `index` exists."""
        return index < len(self.node.output) and bool(self.node.output[index])

    def only_outputs(self, count: int) -> None:
        """Declines if the node has more outputs than the converter computes."""
        if any(self.wants(index) for index in range(count, len(self.node.output))):
            raise DeclinedError(f"only its first {count} output(s) are supported")

    def tensor(self, index: int) -> relax.Expr:
        return self.builder.tensor(self.node.input[index])

    def tensors(self) -> list[relax.Expr]:
        return [self.tensor(index) for index in range(len(self)) if self.has(index)]

    def dtype(self, index: int) -> str:
        return self.builder.value(self.node.input[index]).dtype

    def shape(self, index: int) -> Dims:
        """Dims of input `index`; declines if they are not known."""
        return self._known_shape(self.node.input[index])

    def out_shape(self, index: int = 0) -> Dims:
        return self._known_shape(self.node.output[index])

    def out_dtype(self, index: int = 0) -> str:
        return self.builder.value(self.node.output[index]).dtype

    def _known_shape(self, name: str) -> Dims:
        shape = self.builder.value(name).shape
        if shape is None or not self.builder.has_defined(shape):
            raise DeclinedError(f"the shape of '{name}' depends on data or is not known")
        return shape

    def fixed(self, dims: Sequence[int | Expr], what: str) -> tuple[int, ...]:
        """`dims` as plain sizes; declines, naming `what`, if one is symbolic."""
        sizes = tuple(dim for dim in dims if isinstance(dim, int))
        if len(sizes) < len(dims):
            raise DeclinedError(f"{what} has the symbolic dims {', '.join(map(str, dims))}")
        return sizes

    def rank(self, index: int) -> int:
        return len(self.shape(index))

    def known(self, index: int) -> np.ndarray | None:
        """Elements of input `index` (ints, bools, floats, Exprs) if known before run time."""
        return self.builder.known(self.node.input[index])

    def ints(self, index: int) -> list[int] | None:
        """The elements of input `index` if all are known plain integers."""
        data = self.known(index)
        if data is None or any(isinstance(element, Expr) for element in data.flat):
            return None
        return [int(element) for element in data.flat]

    def need_ints(self, index: int, what: str) -> list[int]:
        """Like `ints`, but declines; `what` names the operand."""
        values = self.ints(index)
        if values is None:
            raise DeclinedError(f"{what} is known only at run time")
        return values

    def scalar(self, index: int) -> float | int | bool | None:
        """The single known element of input `index`, else None."""
        data = self.known(index)
        if data is None or data.size != 1 or isinstance(data.flat[0], Expr):
            return None
        element = data.flat[0]
        return element.item() if isinstance(element, np.generic) else element

    def axis(self, default: int | None, rank: int, name: str = "axis") -> int:
        """The attribute `name` as a non-negative axis."""
        axis = self.attr(name, default)
        if axis is None or not -rank <= axis < max(rank, 1):
            raise DeclinedError(f"{name} {axis} does not exist in {rank} dims")
        return axis % rank if rank else 0

    def axes(self, index: int) -> list[int] | None:
        """Axes from the attribute (older operator sets) or input `index`; None if not given."""
        if "axes" in self.attributes:
            return list(self.attributes["axes"])
        return self.need_ints(index, "the list of axes") if self.has(index) else None

    @property
    def where(self) -> str:
        """How messages of a run name the node."""
        return f"{self.op} '{graphs.label(self.node)}'"

    def match(self, value: relax.Expr, ty: relax.Type) -> relax.Var:
        """The value as one of this type; a run in which its sizes are others fails."""
        return self.builder.match(value, ty, self.where)

    def emit(self, expr: relax.Expr) -> relax.Var:
        return self.builder.bb.emit(expr)

    def te(self, compute: Callable[..., Any], *tensors: relax.Expr, name: str) -> relax.Expr:
        """The function `compute` of TE tensors, as a kernel called `name`."""
        return self.builder.bb.call_te(compute, *tensors, primfunc_name_hint=name)

    def prim(self, dim: int | Expr) -> Any:
        return self.builder.prims.prim(dim)

    def shape_expr(self, dims: Sequence[int | Expr]) -> relax.ShapeExpr:
        return self.builder.prims.shape(dims)

    def reshape(self, tensor: relax.Expr, dims: Sequence[int | Expr]) -> relax.Expr:
        return reshape(tensor, map(self.prim, dims))

    def constant(self, array: np.ndarray, hint: str) -> relax.Expr:
        """A new constant or weight that the ONNX model does not have."""
        return self.builder.weight(f"{graphs.label(self.node)}_{hint}", array)
