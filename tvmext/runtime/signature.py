"""What a compiled model accepts: the sizes of its inputs against dims, ranges and guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvmext.artifact import ArtifactMetadata
from tvmext.errors import DimError, InputError
from tvmext.frontends.dims import Dim, Expr, as_symbol, evaluate, names_of
from tvmext.frontends.model import TensorSpec

Shapes = Sequence[tuple[int, ...]]


class Signature:
    """The inputs of a model, and what their shapes must satisfy together."""

    def __init__(self, metadata: ArtifactMetadata) -> None:
        self.inputs = metadata.inputs
        self.outputs = metadata.outputs
        self.guards = metadata.guards
        self.dims: Mapping[str, Dim] = metadata.dims
        self.positions = {spec.name: position for position, spec in enumerate(self.inputs)}

    def order(self, inputs: tuple[object, ...]) -> list[object]:
        """The values of a call, given as one mapping or by position, in the order of `inputs`."""
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return self._by_name(inputs[0])
        if len(inputs) != len(self.inputs):
            raise InputError(
                f"{len(inputs)} inputs given, the model takes {len(self.inputs)}",
                hint=f"its inputs are {self._listed()}",
            )
        return list(inputs)

    def sizes(self, shapes: Shapes) -> dict[str, int]:
        """The value of every dim that these input shapes bind.

        Raises InputError for a wrong rank or fixed size, DimError if dims contradict each other, a
        range or a guard.
        """
        sizes: dict[str, int] = {}
        origin: dict[str, str] = {}
        for spec, shape in zip(self.inputs, shapes):
            if len(shape) != len(spec.shape):
                raise InputError(
                    f"input '{spec.name}' has {len(shape)} dims, shape {_text(shape)}; "
                    f"expected {len(spec.shape)}: {_text(spec.shape)}",
                    hint=f"its inputs are {self._listed()}",
                )
            for axis, (size, expected) in enumerate(zip(shape, spec.shape)):
                self._bind(spec, axis, size, expected, sizes, origin)
        self._check_expressions(shapes, sizes)
        self._check_guards(sizes)  # before the ranges, which the guards have narrowed
        for name, dim in self.dims.items():
            if name in sizes:
                dim.check(sizes[name], f"input '{origin[name]}'")
        return sizes

    def _by_name(self, inputs: Mapping[str, object]) -> list[object]:
        if inputs.keys() != self.positions.keys():
            missing = [name for name in self.positions if name not in inputs]
            unknown = [str(name) for name in inputs if name not in self.positions]
            parts = [
                f"{what}: {', '.join(names)}"
                for what, names in (("missing inputs", missing), ("unknown inputs", unknown))
                if names
            ]
            raise InputError("; ".join(parts), hint=f"its inputs are {self._listed()}")
        return [inputs[name] for name in self.positions]

    def _bind(
        self,
        spec: TensorSpec,
        axis: int,
        size: int,
        expected: int | Expr,
        sizes: dict[str, int],
        origin: dict[str, str],
    ) -> None:
        """Take one size in: a fixed one is compared, a bare dim is bound or compared."""
        if isinstance(expected, int):
            if size != expected:
                raise InputError(
                    f"input '{spec.name}' has size {size} on axis {axis}, expected {expected}; "
                    f"its shape is {_text(spec.shape)}",
                    hint="an array of that shape, or compile for others: --dim binds or frees dims",
                )
        elif name := as_symbol(expected):
            first = sizes.setdefault(name, size)
            source = origin.setdefault(name, spec.name)
            if first != size:
                raise DimError(
                    f"dim '{self._title(name)}' is {first} in '{source}' but {size} in "
                    f"'{spec.name}' (axis {axis})",
                    hint=f"arrays that agree: its inputs are {self._listed()}",
                )

    def _check_expressions(self, shapes: Shapes, sizes: Mapping[str, int]) -> None:
        """Compare sizes that are computed from dims, such as past + seq."""
        for spec, shape in zip(self.inputs, shapes):
            for axis, (size, dim) in enumerate(zip(shape, spec.shape)):
                names = names_of(dim)
                if names and names <= sizes.keys() and evaluate(dim, sizes) != size:
                    raise DimError(
                        f"input '{spec.name}' has size {size} on axis {axis}, expected "
                        f"{dim} = {evaluate(dim, sizes)} ({self._values(names, sizes)})",
                        hint=f"arrays that agree: its inputs are {self._listed()}",
                    )

    def _check_guards(self, sizes: Mapping[str, int]) -> None:
        for guard in self.guards:
            if guard.names <= sizes.keys() and not guard.holds(sizes):
                reason = f"; {guard.reason}" if guard.reason else ""
                raise DimError(
                    f"these sizes do not fit the model: it needs {guard}, but "
                    f"{self._values(guard.names, sizes)}{reason}",
                    hint="run it with sizes that fit, or compile it for these sizes alone",
                )

    def _values(self, names: frozenset[str], sizes: Mapping[str, int]) -> str:
        return ", ".join(f"{self._title(name)} = {sizes[name]}" for name in sorted(names))

    def _title(self, name: str) -> str:
        return self.dims[name].title if name in self.dims else name

    def _listed(self) -> str:
        return "; ".join(map(str, self.inputs)) or "none"


def _text(shape: Sequence[int | Expr]) -> str:
    return f"[{', '.join(map(str, shape))}]"
