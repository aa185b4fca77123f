"""Weights travel from the module to the library on disk, not through the code generator.

`export_library` copies the weights again and again: into the executable's byte string, into the
packed imports, into an LLVM constant, into an object file. Here the large constants leave the
Relax module before code generation (`detach`), a small marker standing in for each, and return
while the packed imports are written to a file (`write_library_bin`), straight from the tensors'
memory. The bytes in the library are the ones TVM would have written, so plain TVM loads it.
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.errors import InternalError

DETACH_BYTES = 4096
"""Constants of at least this size leave the module; for smaller ones it is not worth a marker."""

# SaveDLTensor (TVM include/tvm/runtime/tensor.h): u64 magic, u64 reserved, i32 device type,
# i32 device id, i32 ndim, u8 type code, u8 bits, u16 lanes, i64 shape[ndim], i64 bytes, data.
_TENSOR_MAGIC = 0xDD5E40F096B4A13F
_CPU = 1
_MARK = b"weight detached by tvmext"


def detach(mod: tvm.IRModule) -> tuple[tvm.IRModule, list[tvm.runtime.Tensor]]:
    """The module with markers for its large constants, and the constants by marker index.

    Equal constants share one marker: a uint8 vector that keeps the type of what it stands for.
    `mod` must be lowered to VM calls, where nothing reads the value of a constant any more.
    """
    detacher = _Detacher(mod)
    for gvar, function in list(mod.functions.items()):
        if isinstance(function, relax.Function):
            detacher.builder_.update_func(gvar, detacher.visit_expr(function))
    return detacher.builder_.get(), detacher.tensors


@mutator
class _Detacher(PyExprMutator):
    """Replaces constants by markers, in every function of a module."""

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.tensors: list[tvm.runtime.Tensor] = []
        self._index: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    def visit_generic_const_(self, op: GenericConst) -> relax.Expr:
        tensor = op.value
        if not _is_detachable(tensor):
            return op
        key = str(tensor.dtype), tuple(tensor.shape), hashlib.sha256(_memory(tensor)).digest()
        index = self._index.setdefault(key, len(self.tensors))
        if index == len(self.tensors):
            self.tensors.append(tensor)
        return GenericConst(_marker(index), op.ty)


def write_library_bin(packed: bytes, tensors: list[tvm.runtime.Tensor], path: Path) -> None:
    """Write TVM's packed imports to a file with the weights back in their places.

    `packed` is what TVM embeds as ``__tvm_ffi__library_bin``: u64 length of the rest, the import
    tree, then the modules, each as its kind and its bytes. The executable is the root and comes
    first. The two lengths that count the weights are adjusted. No weight is copied in memory.
    """
    found = list(_find_markers(packed))
    growth = sum(
        len(_header(tensors[index])) + _nbytes(tensors[index]) - (end - start)
        for start, end, index in found
    )
    with path.open("wb") as file:
        position = 0
        for at in (0, _executable_length_at(packed)):
            file.write(packed[position:at])
            file.write(struct.pack("<Q", struct.unpack_from("<Q", packed, at)[0] + growth))
            position = at + 8
        for start, end, index in found:
            file.write(packed[position:start])
            file.write(_header(tensors[index]))
            file.write(_memory(tensors[index]))
            position = end
        file.write(packed[position:])


def _is_detachable(value: object) -> bool:
    return (
        isinstance(value, tvm.runtime.Tensor)
        and _nbytes(value) >= DETACH_BYTES
        and value.dtype.bits % 8 == 0
        and value.is_contiguous()
    )


def _nbytes(tensor: tvm.runtime.Tensor) -> int:
    return tensor.numel() * tensor.dtype.itemsize


def _memory(tensor: tvm.runtime.Tensor) -> memoryview:
    """The bytes of a host tensor, not copied; valid as long as the tensor lives."""
    return memoryview((ctypes.c_ubyte * _nbytes(tensor)).from_address(tensor.data_ptr()))


def _header(tensor: tvm.runtime.Tensor) -> bytes:
    dtype, ndim = tensor.dtype, tensor.ndim
    return struct.pack(
        f"<QQiiiBBH{ndim}qq",
        *(_TENSOR_MAGIC, 0, _CPU, 0, ndim, dtype.type_code, dtype.bits, dtype.lanes),
        *tensor.shape,
        _nbytes(tensor),
    )


def _marker(index: int) -> tvm.runtime.Tensor:
    """A uint8 vector that says which constant stood here."""
    return tvm.runtime.tensor(np.frombuffer(_MARK + struct.pack("<Q", index), np.uint8))


def _find_markers(packed: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, end, index) of the tensor record of every marker, in order."""
    header = _header(_marker(0))
    at = packed.find(header + _MARK)
    while at >= 0:
        end = at + len(header) + len(_MARK) + 8
        yield at, end, struct.unpack_from("<Q", packed, end - 8)[0]
        at = packed.find(header + _MARK, end)


def _executable_length_at(packed: bytes) -> int:
    """Where the length of the executable's bytes is written: behind import tree and kind."""
    at = 8
    for _ in ("import tree rows", "import tree children"):
        (count,) = struct.unpack_from("<Q", packed, at)
        at += 8 + 8 * count
    (length,) = struct.unpack_from("<Q", packed, at)
    kind = packed[at + 8 : at + 8 + length]
    if kind != b"relax.VMExecutable":
        raise InternalError(f"the packed library starts with {kind!r}, not with the executable")
    return at + 8 + length
