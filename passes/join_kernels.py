"""Kernels that differ only in sizes which make them no faster become one that any of them fits.

    f(x: [n, m, 2, 32])   and   g(x: [n, m, 5, 32])     become     k(x: [n, m, heads, 32])

Which sizes these are the schedule rule says: kernels that it describes alike, and their common form
as well. Only kernels with free sizes are joined: those that know all sizes gain by each.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import GlobalVar, Var
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.tirx import PrimFunc

from .rewrite import rewrite

Alike = Callable[[PrimFunc], Hashable | None]
"""What kernels that may be joined have in common; None for a kernel that is left alone."""


def unlike(_func: PrimFunc) -> None:
    """No kernel is like another."""


@tvm.transform.module_pass(opt_level=1, name="JoinKernels")
class JoinKernels:
    """One PrimFunc for all that are alike and differ in sizes alone."""

    def __init__(self, alike: Alike = unlike) -> None:
        self.alike = alike

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        groups: dict[Hashable, list[GlobalVar]] = {}
        for var, func in mod.functions_items():
            if isinstance(func, PrimFunc) and _has_free_sizes(func):
                key = self.alike(func)
                if key is not None:
                    groups.setdefault(key, []).append(var)
        functions = dict(mod.functions_items())
        joined = [
            (members, func)
            for key, alike in groups.items()
            for members, func in _joined(functions, alike)
            if self.alike(func) == key
        ]
        if not joined:
            return mod
        for members, _ in joined:
            for var in members:
                del functions[var]
        rest = tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)
        return rewrite(rest, _Caller(rest, joined))


Joined = list[tuple[list[GlobalVar], PrimFunc]]
"""Kernels that are left out, and the one that takes their place."""


def _joined(functions: Mapping[GlobalVar, Any], alike: Iterable[GlobalVar]) -> Joined:
    """Kernels of one form each, where there are several."""
    forms: list[tuple[PrimFunc, list[GlobalVar], list[list[Any]]]] = []
    for var in alike:
        form, sizes = _taken_apart(functions[var])
        for other, those, theirs in forms:
            if tvm_ffi.structural_equal(form, other):
                those.append(var)
                theirs.append(sizes)
                break
        else:
            forms.append((form, [var], [sizes]))
    found = (
        (members, _common(functions[members[0]], list(zip(*sizes))))
        for _, members, sizes in forms
        if len(members) > 1
    )
    return [(members, func) for members, func in found if func is not None]


@mutator
class _Caller(PyExprMutator):
    """Calls of kernels that were joined become calls of what they were joined to."""

    def __init__(self, rest: tvm.IRModule, joined: Joined) -> None:
        super().__init__(rest)
        self.joined: dict[GlobalVar, GlobalVar] = {}
        for members, func in joined:
            new = self.builder_.add_func(func, members[0].name_hint)
            self.joined |= dict.fromkeys(members, new)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if call.args and call.args[0] in self.joined:
            args = [self.joined[call.args[0]], *call.args[1:]]
            call = relax.Call(call.op, args, call.attrs, ty_args=call.ty_args)
        return self.visit_expr_post_order(call)


def _has_free_sizes(func: PrimFunc) -> bool:
    return any(
        not isinstance(dim, tirx.IntImm)
        for param in func.params
        if tirx.is_buffer_var(param)
        for dim in param.shape
    )


def _taken_apart(func: PrimFunc) -> tuple[PrimFunc, list[Any]]:
    """The kernel with 0 for every size, and the sizes in the order of their places."""
    sizes: list[Any] = []
    free = _bare(func)

    def take(size: Any) -> Any:
        if str(size.ty.dtype) != "int64" or (isinstance(size, Var) and size not in free):
            return size
        sizes.append(size)
        return tirx.IntImm("int64", 0)

    return _mapped(func, take), sizes


def _common(func: PrimFunc, places: list[tuple[Any, ...]]) -> PrimFunc | None:
    """`func` with a name for what differs at some places; None if its callers cannot tell one."""
    names: dict[tuple[Any, ...], Any] = {}
    order = iter(places)
    free = _bare(func)

    def put(size: Any) -> Any:
        if str(size.ty.dtype) != "int64" or (isinstance(size, Var) and size not in free):
            return size
        place = next(order)
        key = tuple(size.value if isinstance(size, tirx.IntImm) else size for size in place)
        if isinstance(key[0], int) and len(set(key)) == 1:
            return size
        return names.setdefault(key, Var(f"n{len(names)}", "int64"))

    found = _laid_out(_mapped(func, put))
    used: list[Var] = []
    tvm_ffi.structural_walk(found.body, (Var, used.append))
    return found if set(names.values()) & set(used) <= _bare(found) else None


def _bare(func: PrimFunc) -> set[Var]:
    """The sizes that are a dim of a parameter by themselves."""
    return {
        dim
        for param in func.params
        if tirx.is_buffer_var(param)
        for dim in param.shape
        if isinstance(dim, Var)
    }


def _mapped(func: PrimFunc, size: Callable[[Any], Any]) -> PrimFunc:
    """The kernel with ``size(number or variable)`` in the place of each, in a fixed order."""

    def scalar(var: Var) -> Any:
        return var if tirx.is_buffer_var(var) else size(var)

    return tvm_ffi.structural_map(func, [(tirx.IntImm, size), (Var, scalar)])


def _laid_out(func: PrimFunc) -> PrimFunc:
    """The kernel with its buffers declared anew: strides of a layout are as its shape has them."""
    buffers: dict[Var, Var] = {}

    def buffer(var: Var) -> Var:
        if tirx.is_buffer_var(var) and var not in buffers:
            dtype, scope = str(var.dtype), var.scope()
            buffers[var] = tirx.decl_buffer(var.shape, dtype, var.name, scope=scope)
        return buffers.get(var, var)

    params = [buffer(param) for param in func.params]
    body = tvm_ffi.structural_map(func.body, (Var, buffer))
    return PrimFunc(params, body, func.ret_type, func.attrs)
