"""Names by which a kernel is traced back to the values of the network that it computes.

    lv17 = R.permute_dims(lv16)     becomes     v17_ = R.permute_dims(v16_)

where 17 is the place of the binding in the main function of the model. A pass keeps the name of a
variable whose value it keeps, and gives it to what computes that value from then on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.relax.transform import ConvertLayout, FuseOps

from .size_order import sizes_first

_DATA = (relax.TensorType, relax.TupleType)
_NAME = re.compile(r"v(\d+)_\d*")  # the builder adds digits to a name that comes again
_NUMBER = re.compile(r"(?<=[A-Za-z])\d+(?=_|$)")


@tvm.transform.module_pass(opt_level=0, name="NameValues")
class NameValues:
    """Name the variables of main after their places."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        names = {b.var: f"v{place}_" for place, b in enumerate(_bindings(mod["main"]))}
        return _renamed(mod, names)


@tvm.transform.module_pass(opt_level=1, name="FuseOperators")
class FuseOperators:
    """TVM's FuseOps, which names the results of the functions that it makes anew."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        fused = sizes_first(FuseOps()(mod), mod)
        return _renamed(fused, _Values(mod).names_in(fused))


@tvm.transform.module_pass(opt_level=2, name="ConvertLayouts")
class ConvertLayouts:
    """TVM's ConvertLayout, which names anew what it converts.

    A value and its copies in other layouts have one name. `wanted` gives the layouts for a call, by
    the name of its operator.
    """

    def __init__(self, wanted: Callable[[relax.Call], Mapping[str, Sequence[str]]]) -> None:
        self.wanted = wanted

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        mod = _with_named_values(mod)
        if not any(self.wanted(call) for call in _calls(mod)):
            return mod  # ConvertLayout has no layout for a tensor of unknown rank
        converted = ConvertLayout({}, self.wanted)(mod)
        return _renamed(converted, _names_in_order(mod, converted))


def _with_named_values(mod: tvm.IRModule) -> tvm.IRModule:
    """``v = f(x); y = match_cast(v)`` for ``y = match_cast(f(x))``: TVM wants variables there."""
    casts = (b for b in _bindings(mod["main"]) if isinstance(b, relax.MatchCast))
    if all(isinstance(cast.value, relax.Var) for cast in casts):
        return mod
    namer = _ValueNamer(mod)
    main = mod.get_global_var("main")
    namer.builder_.update_func(main, namer.visit_expr(mod[main]))
    return namer.builder_.get()


@mutator
class _ValueNamer(PyExprMutator):
    def visit_match_cast_(self, binding: relax.MatchCast) -> None:
        value = self.visit_expr(binding.value)
        if not isinstance(value, relax.Var):
            value = self.builder_.emit(value)
        self.builder_.emit_normalized(relax.MatchCast(binding.var, value, binding.ty))


def _calls(mod: tvm.IRModule) -> list[relax.Call]:
    values = (getattr(binding, "value", None) for binding in _bindings(mod["main"]))
    return [value for value in values if isinstance(value, relax.Call)]


def unnumbered(name: str) -> str:
    """The name of a kernel without what tells it from others: matmul_add of matmul1_add23."""
    return _NUMBER.sub("", name)


def place_of(name: str) -> int | None:
    """The place, in the main function of the model, of the value that a variable of this name is.

    None if it is none of them.
    """
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def _names_in_order(old: tvm.IRModule, new: tvm.IRModule) -> dict[relax.Var, str]:
    """The names of `new`, whose bindings are those of `old` and transposes between them."""
    waiting = _bindings(old["main"])[::-1]
    known: dict[Any, relax.Var] = {}
    for binding in _bindings(new["main"]):
        value = binding.value
        if waiting and _operator(value) == _operator(waiting[-1].value):
            known[binding.var] = waiting.pop().var
        elif _operator(value) == "relax.permute_dims" and value.args[0] in known:
            known[binding.var] = known[value.args[0]]
    return {var: name.name for var, name in known.items()}


def _operator(value: Any) -> Any:
    op = getattr(value, "op", None)
    return getattr(op, "name", op) if op is not None else type(value)


class _Values:
    """The variables of a main function by how they are computed, to find them in another.

    Of those that are computed alike, and so have the same value, the first stands for all.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        self._computed: dict[Any, relax.Var] = {}
        known: dict[relax.Var, relax.Var] = {}
        for binding in _bindings(mod["main"]):
            key = _key(binding.value, known)
            known[binding.var] = self._computed.setdefault(key, binding.var)

    def names_in(self, mod: tvm.IRModule) -> dict[relax.Var, str]:
        """What the variables of another main are called in this one.

        Shapes keep their names: by what they are made of they are all alike.
        """
        known: dict[relax.Var, Any] = {}
        for binding in _bindings(mod["main"]):
            known[binding.var] = self._find(binding.value, known, mod)
        return {
            var: old.name
            for var, old in known.items()
            if isinstance(old, relax.Var) and isinstance(var.ty, _DATA)
        }

    def _find(self, value: relax.Expr, known: Mapping[Any, Any], mod: tvm.IRModule) -> Any:
        """The old variable of a value, or several for a tuple; None where there is none."""
        if isinstance(value, relax.TupleGetItem):
            fields = known.get(value.tuple_value)
            if isinstance(fields, tuple):
                return fields[int(value.index)]
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar):
            return self._inside(mod[value.op], [_old(arg, known) for arg in value.args], mod)
        return self._computed.get(_key(value, known))

    def _inside(self, func: relax.Function, args: Sequence[Any], mod: tvm.IRModule) -> Any:
        known = dict(zip(func.params, args))
        for binding in _bindings(func):
            known[binding.var] = self._find(binding.value, known, mod)
        result = func.body.body
        if isinstance(result, relax.Tuple):
            return tuple(known.get(field) for field in result.fields)
        return known.get(result)


def _key(value: relax.Expr, known: Mapping[Any, Any]) -> Any:
    """An operation and its operands: old variables, constants, and the functions that are called.

    Shapes are left out, in which fusion renames the dims.
    """
    operands = []

    def visit(expr: Any) -> None:
        if isinstance(expr, tvm.ir.GenericConst | tvm.ir.GlobalVar):
            operands.append(expr)
        elif isinstance(expr, relax.Var) and isinstance(expr.ty, _DATA):
            operands.append(_old(expr, known))

    relax.analysis.post_order_visit(value, visit)
    what = getattr(value, "op", None) or getattr(value, "index", None) or type(value)
    return what, tuple(operands)


def _old(expr: Any, known: Mapping[Any, Any]) -> Any:
    """What an operand was before fusion: inputs and constants are what they were."""
    found = known.get(expr)
    return expr if found is None else found


def _bindings(func: relax.Function) -> list[relax.Binding]:
    return [binding for block in func.body.blocks for binding in block.bindings]


def _renamed(mod: tvm.IRModule, names: Mapping[relax.Var, str]) -> tvm.IRModule:
    rewriter = _Renamer(mod, names)
    main = mod.get_global_var("main")
    rewriter.builder_.update_func(main, rewriter.visit_expr(mod[main]))
    return rewriter.builder_.get()


@mutator
class _Renamer(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, names: Mapping[relax.Var, str]) -> None:
        super().__init__(mod)
        self.names = names

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        name = self.names.get(binding.var, binding.var.name)
        var = type(binding.var)(name, binding.var.ty)
        self.set_var_remap(binding.var, var)
        self.builder_.emit_normalized(relax.VarBinding(var, self.visit_expr(binding.value)))
