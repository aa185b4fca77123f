"""Loaders become the first blocks of the kernels that read them.

    v = call_tir(loader, (x,))                    y = call_tir(kernel', (x, w))
    y = call_tir(kernel, (v, w))      becomes
                                      kernel' = { V[i] = X[map(i)];  the blocks of kernel over V }

The schedule rule of the kernel reads the operand through the map in place, or lets its pack or
stage step do the move: no tensor is written for it. FuseOps does this where a consumer is
elementwise; here any kernel counts whose rule takes it. A loader that some reader cannot take in is
left as it is for all of them, because its tensor exists then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from .check import KEPT, moves
from .emit import OPERATORS, VIEW, loader
from .general import kernel_of
from .prims import Prims, UnmappedError
from .tensor import VirtualTensor, physical
from .tir_map import map_of

Reading = Callable[[tirx.PrimFunc, frozenset[int]], tuple[str, float]]
"""The schedule rule of a function some of whose parameters are weights, "" if none knows it, and
what its loads and its call cost, in cycles."""

STAGED = {("gemm", "conv")}
"""Rules one of which takes over from the other when an operand has to be copied to a stage."""


@tvm.transform.module_pass(opt_level=0, name="JoinLoaders")
class JoinLoaders:
    """Join each kernel that only moves data with its readers: where that is cheaper, or always.

    With `memory`, whatever the readers' rules take is joined, because it saves a tensor.
    """

    def __init__(self, reading: Reading, memory: bool = False) -> None:
        self.reading = reading
        self.memory = memory

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        rewriter = _Rewriter(mod)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                rewriter.plan = _Planner(mod, func, self.reading, self.memory)
                rewriter.builder_.update_func(var, rewriter.visit_expr(func))
                for kept, reason in rewriter.plan.kept.items():
                    if not reason:
                        continue
                    callee = rewriter.plan.calls[kept].args[0]
                    rewriter.builder_.update_func(callee, mod[callee].with_attr(KEPT, reason))
        return relax.transform.DeadCodeElimination()(rewriter.builder_.get())


@dataclass(frozen=True, eq=False)
class _Operand:
    """What a kernel reads as one of its arguments, instead of a tensor in memory."""

    tensor: VirtualTensor
    dtype: str
    operators: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Joined:
    """A kernel with the loaders of `operands`, and what it is called with."""

    operands: dict[relax.Var, _Operand]
    func: tirx.PrimFunc
    call: relax.Call
    args: tuple[relax.Expr, ...]


class _Planner:
    """Decides which loaders of a function are joined with their readers."""

    def __init__(
        self, mod: tvm.IRModule, func: relax.Function, reading: Reading, memory: bool
    ) -> None:
        self.mod = mod
        self.memory = memory
        self.reading = reading
        self.prims = Prims()
        self.homes: dict[str, relax.Expr] = {}
        self.joined: dict[relax.Var, _Joined] = {}
        self.kept: dict[relax.Var, str] = {}
        self.calls: dict[relax.Var, relax.Call] = {}
        self.readers: dict[relax.Var, dict[relax.Var, None]] = {}
        self.others = set(_reads(func.body.body))
        for block in func.body.blocks:
            for binding in block.bindings:
                self._note(binding.var, binding.value)
        for var in [v for v in self.calls if self._is_loader(v)]:
            self.kept[var] = self._reason(var)

    def _note(self, var: relax.Var, value: relax.Expr) -> None:
        """Remembers who reads what; `others` are variables that no kernel alone reads."""
        if not (isinstance(value, relax.Call) and value.op == _CALL_TIR):
            self.others |= set(_reads(value))
            return
        self.calls[var] = value
        for read in _reads(value):
            self.readers.setdefault(read, {})[var] = None
        if not isinstance(var, relax.DataflowVar):
            self.others.add(var)

    def _func(self, var: relax.Var) -> tirx.PrimFunc:
        return self.mod[self.calls[var].args[0]]

    def _is_view(self, var: relax.Var) -> bool:
        return bool(self._func(var).attrs.get(VIEW, 0))

    def _is_loader(self, var: relax.Var) -> bool:
        return not self._is_view(var) and moves(self._func(var))

    def _reason(self, loader: relax.Var) -> str:
        """Why a loader stays; "" if it is joined with its readers, or if an output needs it."""
        try:
            return self._consider(loader)
        except UnmappedError as reason:
            return str(reason)

    def _consider(self, loader: relax.Var) -> str:
        """Joins the loader with all of its readers, or with none; says why."""
        paths = self._paths(loader)
        if not paths:
            return ""
        rule, alone = self._plain(loader)
        if not rule:
            return "no schedule rule reads its blocks"
        found: dict[relax.Var, _Joined] = {}
        instead = 0.0
        for reader, ends in paths.items():
            known = self.joined.get(reader)
            before, price = self._read(known.func, known.args) if known else self._plain(reader)
            if not before:
                return f"no schedule rule reads the blocks of '{self._name(reader)}'"
            operands = {**known.operands, **ends} if known else ends
            joined = join(self.mod, self.calls[reader], operands, self.prims, self.homes)
            after, dearer = self._read(joined.func, joined.args)
            if after != before and (before, after) not in STAGED:
                return f"rule '{before}' does not take it, '{after}' would"
            instead += dearer - price
            found[reader] = joined
        if instead > alone and not self.memory:
            names = ", ".join(self._name(reader) for reader in paths)
            return f"priced: {alone:.0f} cycles alone, {instead:.0f} in {names}"
        self.joined |= found
        return ""

    def _paths(self, loader: relax.Var) -> dict[relax.Var, dict[relax.Var, _Operand]]:
        """The kernels that read the loader, each with what it reads of it, through views.

        Empty if the loader's tensor has to exist because something else reads it.
        """
        found: dict[relax.Var, dict[relax.Var, _Operand]] = {}
        todo, known = [loader], {loader: self._virtual(loader, {})}
        for var in todo:
            if var in self.others:
                return {}
            for reader in self.readers.get(var, ()):
                if self._is_view(reader):
                    known[reader] = self._virtual(reader, known)
                    todo.append(reader)
                else:
                    operators = str(self._func(loader).attrs.get(OPERATORS, "loader")).split(",")
                    operand = _Operand(known[var], str(var.ty.dtype), tuple(operators))
                    found.setdefault(reader, {})[var] = operand
        return found

    def _virtual(self, var: relax.Var, known: Mapping[relax.Expr, VirtualTensor]) -> VirtualTensor:
        """What a loader or a view makes, over the tensors that it reads."""
        func, tensors, sizes = kernel_of(self.calls[var], self.mod)
        inputs = [known[arg] if arg in known else self._source(arg) for arg in tensors]
        (tensor,) = map_of(func, inputs, [self.prims.size(size) for size in sizes])
        return tensor

    def _source(self, expr: relax.Expr) -> VirtualTensor:
        """A tensor in memory, in the shape that its kernel gave it."""
        if expr in self.calls and self._is_view(expr):
            return self._virtual(expr, {})
        name = next((n for n, e in self.homes.items() if e.same_as(expr)), f"#{len(self.homes)}")
        self.homes[name] = expr
        return physical(name, self.prims.shape(expr.ty))

    def _name(self, var: relax.Var) -> str:
        return str(self.calls[var].args[0].name_hint)

    def _plain(self, var: relax.Var) -> tuple[str, float]:
        return self._read(self._func(var), self.calls[var].args[1].fields)

    def _read(self, func: tirx.PrimFunc, args: Sequence[relax.Expr]) -> tuple[str, float]:
        weights = (k for k, arg in enumerate(args) if isinstance(arg, GenericConst))
        return self.reading(func, frozenset(weights))


def join(
    mod: tvm.IRModule,
    call: relax.Call,
    operands: dict[relax.Var, _Operand],
    prims: Prims,
    homes: Mapping[str, relax.Expr],
) -> _Joined:
    """The kernel of a call with loaders for some arguments; FuseTIR does it, in a module apart."""
    tensors = [arg for arg in call.args[1].fields if _is_tensor(arg) and arg not in operands]
    tensors += [homes[home.name] for one in operands.values() for home in one.tensor.homes]
    outside = {arg: relax.Var(f"arg{k}", arg.ty) for k, arg in enumerate(dict.fromkeys(tensors))}
    builder = relax.BlockBuilder()
    inside = dict(outside)
    bindings = []
    for var, one in operands.items():
        sources = {home.name: outside[homes[home.name]] for home in one.tensor.homes}
        made = loader(builder, one.tensor, sources, prims, one.dtype, one.operators, select=True)
        ty = relax.TensorType(prims.prim_shape(one.tensor.shape), one.dtype)
        inside[var] = relax.DataflowVar(var.name, ty)
        bindings.append(relax.VarBinding(inside[var], made))
    callee = builder.add_func(mod[call.args[0]], call.args[0].name_hint)
    args = relax.Tuple([inside.get(arg, arg) for arg in call.args[1].fields])
    made = relax.Call(call.op, [callee, args, *call.args[2:]], call.attrs, call.ty_args)
    result = relax.Var("result", call.ty)
    bindings.append(relax.VarBinding(result, made))
    fused, binding = _fused(builder, bindings, outside)
    back = dict(zip(fused["main"].params, outside))
    used = tuple(back.get(arg, arg) for arg in binding.value.args[1].fields)
    return _Joined(operands, fused[binding.value.args[0]], binding.value, used)


def _fused(
    builder: relax.BlockBuilder,
    bindings: list[relax.VarBinding],
    outside: Mapping[relax.Expr, relax.Var],
) -> tuple[tvm.IRModule, relax.VarBinding]:
    """The bindings as one kernel, and its only call, in ``main`` over the tensors in `outside`."""
    result = bindings[-1].var
    dims = relax.Var("dims", relax.ShapeType(_dims(bindings, outside)))
    body = relax.SeqExpr([relax.DataflowBlock(bindings)], result)
    func = relax.Function([*outside.values(), dims], body, result.ty, is_pure=True)
    group = builder.add_func(func.with_attr("Primitive", True), "joined")
    params = [relax.Var(var.name, var.ty) for var in [*outside.values(), dims]]
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(relax.Call(group, params))
        builder.emit_func_output(out)
    fused = relax.transform.FuseTIR()(builder.get())
    (binding,) = fused["main"].body.blocks[0].bindings
    return fused, binding


def _dims(bindings: Iterable[relax.VarBinding], tensors: Iterable[relax.Expr]) -> list[tirx.Var]:
    """The symbolic dims that the bindings mention and that no size of `tensors` is, each once."""
    found: dict[tirx.Var, None] = {}
    for binding in bindings:
        for expr in (*binding.value.args[1].fields, binding.var):
            found |= dict.fromkeys(relax.analysis.tir_vars_in_type(expr.ty))
            if not isinstance(expr.ty, relax.TensorType | relax.TupleType):
                found |= dict.fromkeys([expr])
    for tensor in tensors:
        for var in relax.analysis.definable_tir_vars_in_type(tensor.ty):
            found.pop(var, None)
    return list(found)


def _is_tensor(expr: relax.Expr) -> bool:
    return isinstance(expr.ty, relax.TensorType)


def _reads(value: Any) -> list[relax.Var]:
    found: list[relax.Var] = []
    relax.analysis.post_order_visit(
        value, lambda e: found.append(e) if isinstance(e, relax.Var) else None
    )
    return found


_CALL_TIR = tvm.ir.Op.get("relax.call_tir")


@mutator
class _Rewriter(PyExprMutator):
    """Calls the joined kernels; what they took in is dead."""

    plan: _Planner

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        joined = self.plan.joined.get(binding.var)
        if joined is None:
            super().visit_var_binding_(binding)
            return
        callee = self.builder_.add_func(joined.func, binding.value.args[0].name_hint)
        args = [self.visit_expr(arg) if _is_tensor(arg) else arg for arg in joined.args]
        call = joined.call
        made = relax.Call(
            call.op, [callee, relax.Tuple(args), *call.args[2:]], call.attrs, call.ty_args
        )
        self.set_var_remap(binding.var, self._emit(binding.var, made))

    def _emit(self, var: relax.Var, call: relax.Call) -> relax.Var:
        if isinstance(var, relax.DataflowVar):
            return self.builder_.emit(call, var.name)
        if self.builder_.current_block_is_dataflow():
            return self.builder_.emit_output(call, var.name)
        return self.builder_.emit(call, var.name)
