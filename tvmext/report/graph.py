"""From a main function of TVM to plain data: its steps, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.relax import TensorType

from tvmext.passes.names import place_of
from tvmext.passes.virtual.check import moves

from .sizes import Sizes
from .step import KERNEL, OPERATOR, VIEW, Step

KERNELS = ("relax.call_tir", "relax.call_tir_inplace")
VIEWS = ("relax.reshape", "relax.memory.view")


def steps_of(mod: tvm.IRModule, sizes: Sizes) -> list[Step]:
    """The steps of main, in order."""
    return _Reader(mod, sizes).steps()


@dataclass(frozen=True)
class _Value:
    """What a variable is: (step, place) for each tensor in it, or an input of main."""

    parts: tuple[tuple[int, int | None], ...] = ()
    fields: tuple[_Value, ...] = ()
    input: str = ""


class _Reader:
    def __init__(self, mod: tvm.IRModule, sizes: Sizes) -> None:
        self.mod = mod
        self.sizes = sizes
        self.found: list[Step] = []
        self.values: dict[Any, _Value] = {}

    def steps(self) -> list[Step]:
        main = self.mod["main"]
        for param in main.params:
            self.values[param] = _Value(input=param.name)
        for block in main.body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = self._bound(binding.var, binding.value)
        for k, value in enumerate(self._results(main.body.body)):
            for step, _ in value.parts:
                self.found[step].outputs.append(k)
        return self.found

    def _results(self, body: Any) -> Iterator[_Value]:
        value = self._value(body)
        yield from value.fields or (value,)

    def _bound(self, var: Any, value: Any) -> _Value:
        """What the variable is; a call adds a step."""
        if not isinstance(value, relax.Call):
            return self._renamed(self._value(value), place_of(var.name))
        step = self._step(var, value)
        self.found.append(step)
        number = len(self.found) - 1
        return self._renamed(_Value(((number, None),)), place_of(var.name))

    def _renamed(self, value: _Value, place: int | None) -> _Value:
        """The value under another name: its steps get the place as well."""
        if place is None or value.input or value.fields:
            return value
        for step, _ in value.parts:
            self.found[step].places.add(place)
        return _Value(tuple((step, place) for step, _ in value.parts))

    def _value(self, expr: Any) -> _Value:
        if isinstance(expr, relax.Var):
            return self.values.get(expr, _Value())
        if isinstance(expr, relax.Tuple):
            return _Value(fields=tuple(self._value(field) for field in expr.fields))
        if isinstance(expr, relax.TupleGetItem):
            whole = self._value(expr.tuple_value)
            return whole.fields[int(expr.index)] if whole.fields else whole
        return _Value()

    def _step(self, var: Any, call: relax.Call) -> Step:
        name = getattr(call.op, "name", "")
        kernel = name in KERNELS
        what = call.args[0].name_hint if kernel else name.removeprefix("relax.") or str(call.op)
        kind = KERNEL if kernel else VIEW if name in VIEWS else OPERATOR
        step = Step(what, kind, var.name, _shape_text(var.ty))
        for arg in _variables(call):
            value = self._value(arg)
            for part in value.fields or (value,):
                step.reads += [read for read in part.parts if read not in step.reads]
                if part.input and part.input not in step.inputs:
                    step.inputs.append(part.input)
        if kernel:
            func = self.mod[call.args[0]]
            step.moves = moves(func)
            step.read = self.sizes.bytes_read(func, list(call.args[1].fields))
            step.written = self.sizes.bytes(var.ty)
        return step


def _variables(call: relax.Call) -> list[relax.Var]:
    found: list[relax.Var] = []
    relax.analysis.post_order_visit(
        call, lambda e: found.append(e) if isinstance(e, relax.Var) else None
    )
    return found


def _shape_text(ty: Any) -> str:
    """``1x3x224x224``, of every tensor if there are several."""
    if isinstance(ty, relax.TupleType):
        return ", ".join(map(_shape_text, ty.fields))
    if not isinstance(ty, TensorType) or ty.shape is None:
        return ""
    shape = getattr(ty.shape, "values", ty.shape)
    return "\u00d7".join(re.sub(r"T\.int64\((\d+)\)", r"\1", str(dim)) for dim in shape)
