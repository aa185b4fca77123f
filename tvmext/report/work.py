"""What every kernel call of a compiled network stands for and has to do, kept with the library.

A profile says how long a call took; from the work of the call it also says which nodes of the
model that time belongs to, and how near it is to what the machine can do. Work is exact and
symbolic: an expression over the model's free dims (frontends/dims.py), evaluated where sizes are
known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import ir, relax, s_tir, tirx

from tvmext.arch import dtype_bits
from tvmext.artifact import KernelCall
from tvmext.frontends.dims import Expr, ceildiv, floordiv, maximum, minimum, product, symbol

from .graph import KERNELS, steps_of
from .provenance import origins
from .sizes import Sizes
from .step import KERNEL
from .trace import Network

Size = int | Expr
ARITHMETIC = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min)
NOT_COUNTED = ("prim.if_then_else", "tirx.if_then_else", "tirx.reinterpret", "prim.reinterpret")


def calls_of(kernels: tvm.IRModule, net: Network) -> list[KernelCall]:
    """The calls of kernels, before they are scheduled; `net` is the model as it came.

    Those of main come first, in order; those in bodies of loops and branches name no nodes.

    Additions, multiplications, comparisons and calls of functions on elements count as one
    operation each; of bytes, every element that is read or written counts once.
    """
    steps = steps_of(kernels, Sizes({}))
    stand_for = origins(net.steps, steps)
    calls = _kernel_calls(kernels["main"])
    found = []
    for number, step in enumerate(steps):
        if step.kind == KERNEL:
            call = next(calls)
            nodes = (net.node(k) for k in sorted(stand_for[number]))
            names = dict.fromkeys(node.name for node in nodes if node)
            found.append(KernelCall(step.what, tuple(names), *_work(kernels[call.args[0]], call)))
    for var, body in kernels.functions_items():
        if isinstance(body, relax.Function) and var.name_hint != "main":
            for call in _kernel_calls(body):
                work = _work(kernels[call.args[0]], call)
                found.append(KernelCall(call.args[0].name_hint, (), *work))
    return found


def _kernel_calls(function: relax.Function) -> Iterator[relax.Call]:
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call) and getattr(value.op, "name", "") in KERNELS:
                yield value


def _work(func: tirx.PrimFunc, call: relax.Call) -> tuple[Size | None, Size | None]:
    """The operations and the bytes of one call of a kernel."""
    results = call.ty.fields if isinstance(call.ty, relax.TupleType) else [call.ty]
    arguments = [arg.ty for arg in call.args[1].fields if isinstance(arg.ty, relax.TensorType)]
    buffers = [param for param in func.params if tirx.is_buffer_var(param)]
    tensors = dict(zip(buffers, [*arguments, *results]))
    scalars = [param for param in func.params if not tirx.is_buffer_var(param)]
    numbers = [arg for arg in call.args[1].fields if not isinstance(arg.ty, relax.TensorType)]
    try:
        known: dict[Any, Size] = {}
        for buffer, ty in tensors.items():
            for dim, size in zip(buffer.shape, ty.shape.values):
                if isinstance(dim, ir.Var):
                    known.setdefault(dim, _size(size, {}))
        known |= {param: _size(number, {}) for param, number in zip(scalars, numbers)}
        flops, loads = _executed(func, known)
        moved: Size = 0
        for buffer, ty in tensors.items():
            elements = product(_size(size, {}) for size in ty.shape.values)
            if buffer in buffers[: len(arguments)]:
                elements = minimum(elements, loads.get(buffer, 0))
            moved += ceildiv(elements * dtype_bits(str(ty.dtype)), 8)
    except _NotKnown:
        return None, None
    return flops, moved


def _executed(func: tirx.PrimFunc, known: Mapping[Any, Size]) -> tuple[Size, dict[Any, Size]]:
    """How many operations the blocks of a function execute, and loads of each buffer."""
    flops: Size = 0
    loads: dict[Any, Size] = {}
    blocks: list[s_tir.SBlock] = []
    tvm_ffi.structural_walk(func.body, (s_tir.SBlock, blocks.append))
    for block in blocks:
        if block.iter_vars:
            times = product(_size(axis.dom.extent, known) for axis in block.iter_vars)
            found: list[ir.TensorLoad] = []
            tvm_ffi.structural_walk(block.body, (ir.TensorLoad, found.append))
            for load in found:
                loads[load.source] = loads.get(load.source, 0) + times
            flops += times * _operations(block.body)
    return flops, loads


def _operations(body: tirx.Stmt) -> int:
    """Operations on elements in straight-line code; those of indices do not count."""
    bare = tvm_ffi.structural_map(body, (ir.TensorLoad, lambda load: tirx.const(0, load.ty.dtype)))
    count = 0

    def visit(node: Any) -> None:
        nonlocal count
        count += not (isinstance(node, ir.Call) and node.op.name in NOT_COUNTED)

    values: list[Any] = []
    tvm_ffi.structural_walk(bare, (tirx.BufferStore, lambda store: values.append(store.value)))
    tvm_ffi.structural_walk(bare, (tirx.Bind, lambda bind: values.append(bind.value)))
    for value in values:
        for kind in (*ARITHMETIC, ir.Call):
            tvm_ffi.structural_walk(value, (kind, visit))
    return count


class _NotKnown(Exception):
    """A size that is not an expression over dims."""


def _size(size: Any, known: Mapping[Any, Size]) -> Size:
    """A size of a function as an expression; `known` are its variables, others keep their names."""
    if isinstance(size, int | tirx.IntImm):
        return int(size)
    if isinstance(size, ir.Var):
        return known[size] if size in known else symbol(size.name)
    if isinstance(size, tirx.Cast):
        return _size(size.value, known)
    form = _FORMS.get(type(size))
    if form is None:
        raise _NotKnown
    return form(_size(size.a, known), _size(size.b, known))


_FORMS: Mapping[type, Callable[[Size, Size], Size]] = {
    tirx.Add: lambda a, b: a + b,
    tirx.Sub: lambda a, b: a - b,
    tirx.Mul: lambda a, b: a * b,
    tirx.FloorDiv: floordiv,
    tirx.FloorMod: lambda a, b: a - b * floordiv(a, b),
    tirx.Max: maximum,
    tirx.Min: minimum,
}
