"""Weights lie in the library as data, ready to be used where the system maps them.

Among the constants of TVM's executable they would be copied three times when a library is loaded,
and a few times more while it is made. Here the large constants leave the Relax module before code
generation (`detach`): a kernel gets its weight from a call of `WEIGHT`, a function of the library
that returns the tensor at an index (weight_function.py). The tensors are static objects in the layout of TVM's C ABI
(tvm/ffi/c_api.h: TVMFFIObject, then DLTensor) and point at the bytes beside them. So plain TVM runs
the library, nothing is copied, and processes share the pages.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator
from pathlib import Path

import tvm
from tvm import relax
from tvm.ir import GenericConst, GlobalVar
from tvm.relax.expr_functor import PyExprMutator, mutator

DETACH_BYTES = 8192
"""Constants of at least this size leave the module; for smaller ones it is not worth a call."""

ALIGNMENT = 64
"""What kernels expect of a tensor's address (TVM: kAllocAlignment)."""

WEIGHT = "tvmext_weight"
"""``tvmext_weight(index)``: the tensor; the library keeps its own reference, so it never ends."""

def detach(mod: tvm.IRModule) -> tuple[tvm.IRModule, list[tvm.runtime.Tensor]]:
    """The module with calls of `WEIGHT` for the large constants of kernels, and the constants.

    Equal constants are one. `mod` must be lowered to VM calls. A constant that is a result of the
    module, or that anything but a kernel reads, stays: it may be kept longer than the library is.
    """
    detacher = _Detacher(mod)
    for gvar, function in list(mod.functions.items()):
        if isinstance(function, relax.Function):
            detacher.builder_.update_func(gvar, detacher.visit_expr(function))
    return detacher.builder_.get(), detacher.tensors


@mutator
class _Detacher(PyExprMutator):
    """Replaces the constants among the arguments of kernels, in every function of a module."""

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.tensors: list[tvm.runtime.Tensor] = []
        self._index: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if not isinstance(call.op, GlobalVar):
            return self.visit_expr_post_order(call)
        args = [self._weight(arg) if _is_detachable(arg) else arg for arg in call.args]
        return self.visit_expr_post_order(relax.Call(call.op, args, call.attrs, call.ty_args))

    def _weight(self, constant: GenericConst) -> relax.Expr:
        tensor = constant.value
        key = str(tensor.dtype), tuple(tensor.shape), hashlib.sha256(memory(tensor)).digest()
        index = self._index.setdefault(key, len(self.tensors))
        if index == len(self.tensors):
            self.tensors.append(tensor)
        weight = relax.ExternFunc(WEIGHT)
        return relax.Call(weight, [relax.prim_value(index)], ty_args=[constant.ty])


def _is_detachable(arg: relax.Expr) -> bool:
    tensor = arg.value if isinstance(arg, GenericConst) else None
    return (
        isinstance(tensor, tvm.runtime.Tensor)
        and _nbytes(tensor) >= DETACH_BYTES
        and tensor.dtype.bits % 8 == 0
        and tensor.is_contiguous()
    )


def write_weights(tensors: list[tvm.runtime.Tensor], path: Path) -> list[int]:
    """Write the tensors one after the other, without copying them; returns where each begins."""
    offsets = []
    with path.open("wb") as file:
        for tensor in tensors:
            file.write(bytes(-file.tell() % ALIGNMENT))
            offsets.append(file.tell())
            file.write(memory(tensor))
    return offsets


def objects(tensors: list[tvm.runtime.Tensor], offsets: list[int], data: str) -> Iterator[str]:
    """Lines of assembler that define ``tvmext_weights``; `data` is the label of the bytes."""
    yield from (".section .data", ".balign 8", ".globl tvmext_weights, tvmext_weights_end")
    yield "tvmext_weights:"
    for k, (tensor, offset) in enumerate(zip(tensors, offsets)):
        dtype, ndim = tensor.dtype, tensor.ndim
        yield f".quad {1 << 32 | 1}"  # a weak and a strong reference
        yield ".long 70, 0\n.quad 0"  # kTVMFFITensor; no deleter
        yield f".quad {data} + {offset}\n.long 1, 0, {ndim}"  # on the CPU
        yield f".byte {dtype.type_code}, {dtype.bits}\n.short {dtype.lanes}"
        yield f".quad .Lshape{k}, .Lshape{k} + {8 * ndim}, 0"  # strides follow the shape
    yield "tvmext_weights_end:"
    yield ".globl tvmext_copies"
    yield f"tvmext_copies: .fill {len(tensors)}, 8, 0"  # where a GPU's are found
    for k, tensor in enumerate(tensors):
        shape = [int(size) for size in tensor.shape]
        strides = [1]
        for size in shape[:0:-1]:
            strides.insert(0, strides[0] * size)
        yield f".Lshape{k}: .quad {', '.join(map(str, [*shape, *strides[: len(shape)]])) or 0}"


def memory(tensor: tvm.runtime.Tensor) -> memoryview:
    """The bytes of a host tensor, not copied; valid as long as the tensor lives."""
    return memoryview((ctypes.c_ubyte * _nbytes(tensor)).from_address(tensor.data_ptr()))


def _nbytes(tensor: tvm.runtime.Tensor) -> int:
    return tensor.numel() * tensor.dtype.itemsize
