"""Arrays of the caller as tensors of the virtual machine and back, without a copy where possible.

Generated code loads whole vectors at addresses it takes to be multiples of what the library says
(16 bytes, as NumPy's are; 64 in libraries from before), so an array that lies elsewhere, or has
strides, is copied into a buffer that is kept for the next call.
"""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes  # noqa: F401  gives NumPy the dtypes bfloat16 and float8
import numpy as np
import tvm
import tvm_ffi

from tvmext.errors import InputError
from tvmext.frontends.model import TensorSpec
from tvmext.frontends.storage import from_stored, numpy_dtype, to_stored

_CPU = 1
_NO_DLPACK = ("bfloat16", "float8", "float4", "int4", "uint4")  # of ml_dtypes, not of NumPy


class _Port:
    """One input or output of a model, as tensors of the virtual machine."""

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self._dtype = numpy_dtype(spec.dtype)
        self._stored = numpy_dtype(spec.stored or spec.dtype)
        self._exchanged = not spec.dtype.startswith(_NO_DLPACK)

    def span(self, tensor: tvm_ffi.Tensor) -> tuple[int, int]:
        """The addresses that a contiguous tensor covers: first byte, one past the last."""
        start = tensor.data_ptr()
        return start, start + tensor.numel() * self._dtype.itemsize


class Input(_Port):
    """Turns the values given for one input into tensors. Not thread-safe: it holds a buffer."""

    def __init__(self, spec: TensorSpec, alignment: int) -> None:
        """`alignment`: the bytes that addresses are multiples of where kernels may read."""
        super().__init__(spec)
        self._alignment = alignment
        self._buffer: tvm.runtime.Tensor | None = None
        self._view = np.empty(0)

    def accept(self, value: Any) -> Any:
        """A NumPy array or DLPack tensor of the right dtype on the CPU; nothing is cast.

        Raises InputError.
        """
        if isinstance(value, np.ndarray):
            if value.dtype == self._dtype:
                return value
            raise self._wrong_dtype(str(value.dtype), f'.astype("{self.spec.dtype}")')
        if not hasattr(value, "__dlpack__"):
            return self.accept(self._as_array(value))
        try:
            tensor = tvm_ffi.from_dlpack(value)
        except Exception as error:  # each library raises its own: RuntimeError, BufferError, ...
            raise InputError(
                f"input '{self.spec.name}' cannot be read through DLPack: {error}",
                hint="for a torch tensor, .detach().cpu()",
            ) from error
        if tensor.device.dlpack_device_type() != _CPU:
            raise InputError(
                f"input '{self.spec.name}' is on {tensor.device}, expected the CPU", hint=".cpu()"
            )
        if str(tensor.dtype) != self.spec.dtype:
            raise self._wrong_dtype(str(tensor.dtype), f".to(torch.{self.spec.dtype})")
        return tensor

    def bind(self, value: Any) -> tvm_ffi.Tensor:
        """What `accept` returned as a contiguous, aligned tensor."""
        if self.spec.stored:
            return self._copy(to_stored(_as_numpy_array(value, self._dtype)))
        if not isinstance(value, np.ndarray):
            return (
                value
                if _is_usable(value, self._alignment)
                else self._copy(_as_numpy(value, self._dtype))
            )
        if self._exchanged and value.flags.writeable:
            tensor = tvm_ffi.from_dlpack(value)
            if _is_usable(tensor, self._alignment):
                return tensor
        return self._copy(value)

    def holds(self, tensor: tvm_ffi.Tensor) -> bool:
        """Whether a tensor that `bind` returned is the buffer that is kept for the next call."""
        return tensor is self._buffer

    def _copy(self, array: np.ndarray) -> tvm.runtime.Tensor:
        if self._buffer is None or self._view.shape != array.shape:
            self._buffer = tvm.runtime.empty(array.shape, self.spec.stored or self.spec.dtype)
            self._view = _as_numpy(self._buffer, self._stored)
        np.copyto(self._view, array)
        return self._buffer

    def _as_array(self, value: Any) -> np.ndarray:
        """Python numbers, NumPy scalars and nested lists, as NumPy reads them."""
        array = np.asarray(value)
        if array.dtype == object:
            raise InputError(
                f"input '{self.spec.name}' is a {type(value).__name__}, expected an array",
                hint="a NumPy array, a torch tensor or anything with __dlpack__",
            )
        return array

    def _wrong_dtype(self, got: str, cast: str) -> InputError:
        return InputError(
            f"input '{self.spec.name}' is {got}, expected {self.spec.dtype}",
            hint=f"nothing is cast silently: {cast}",
        )


class Output(_Port):
    """Turns the tensors of one output into arrays; with `always_copy`, never into views."""

    def __init__(self, spec: TensorSpec, always_copy: bool) -> None:
        super().__init__(spec)
        self._always_copy = always_copy

    def own(self, tensor: tvm.runtime.Tensor, taken: list[tuple[int, int]]) -> np.ndarray:
        """An array that the caller may keep and write to.

        It is the tensor's own memory, unless that lies in one of the address ranges `taken`.
        """
        if self.spec.stored:
            return from_stored(tensor.numpy(), self.spec.dtype)
        if not self._exchanged or tensor.device.dlpack_device_type() != _CPU:
            return tensor.numpy()
        array = np.from_dlpack(tensor)
        if self._always_copy:
            return array.copy()
        start = tensor.data_ptr()
        for low, high in taken:
            if low <= start < high:
                return array.copy()
        return array


def _is_usable(tensor: tvm_ffi.Tensor, alignment: int) -> bool:
    """Whether kernels can read the tensor where it lies.

    Not if it is empty: NumPy gives empty arrays strides that kernels refuse.
    """
    return tensor.data_ptr() % alignment == 0 and tensor.is_contiguous() and tensor.numel() > 0


def _as_numpy_array(value: Any, dtype: np.dtype) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else _as_numpy(value, dtype)


def _as_numpy(tensor: tvm_ffi.Tensor, dtype: np.dtype) -> np.ndarray:
    """The tensor's memory, strides and all, as an array; it does not keep the tensor alive."""
    if not tensor.numel():
        return np.empty(tensor.shape, dtype)
    steps = [(size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides)]
    low = sum(step for step in steps if step < 0)
    count = sum(map(abs, steps)) + 1
    memory = (ctypes.c_ubyte * (count * dtype.itemsize)).from_address(
        tensor.data_ptr() + low * dtype.itemsize
    )
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.ndarray(tensor.shape, dtype, memoryview(memory), -low * dtype.itemsize, strides)
