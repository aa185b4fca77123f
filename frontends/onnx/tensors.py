"""TensorProto -> NumPy array, believing nothing that the tensor claims about itself.

Dims, data length and external file are checked against each other before anything is allocated, so
a tensor of a few bytes that claims a terabyte costs an error message and no memory. External data
is mapped, not read: a weight is copied only where somebody copies it.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tvmext.errors import ModelError

MAX_DENSE_ELEMENTS = 1 << 28
"""A sparse initializer with more elements than this is refused instead of made dense."""

_PACKED = {  # elements per byte of the types that are narrower than a byte
    getattr(TensorProto, name): per_byte
    for name, per_byte in {
        "INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4,
    }.items()
    if hasattr(TensorProto, name)
}  # fmt: skip
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
_TYPES = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}


def to_array(tensor: TensorProto, where: str, folder: Path | None) -> np.ndarray:
    """The elements of `tensor` as an array of its dims; may be a read-only view.

    `where` names the tensor in messages. `folder` is the model's folder, the only place external
    data may lie in; None if the model was given in memory.
    Raises ModelError if dims, type, data and external file do not fit together.
    """
    shape = _checked_dims(tensor, where)
    count = math.prod(shape)
    if tensor.data_type == TensorProto.STRING:
        if len(tensor.string_data) != count:
            raise _length_error(where, shape, len(tensor.string_data), count, "strings")
        return _shaped(np.array(list(tensor.string_data), dtype=object), shape, where)
    if tensor.data_location == TensorProto.EXTERNAL:
        raw: bytes | np.ndarray = _external_bytes(tensor, where, folder, _byte_count(tensor, count))
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
        if len(raw) != _byte_count(tensor, count):
            raise _length_error(where, shape, len(raw), _byte_count(tensor, count), "bytes")
    else:
        return _typed_array(tensor, where, shape)
    if tensor.data_type in _PACKED:
        whole = TensorProto(dims=[count], data_type=tensor.data_type, raw_data=bytes(raw))
        return _shaped(numpy_helper.to_array(whole), shape, where)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).newbyteorder("<")
    return _shaped(np.frombuffer(raw, dtype=dtype), shape, where)


def sparse_to_array(sparse: object, where: str) -> np.ndarray:
    """A SparseTensorProto as a dense array; ModelError if it is malformed or would be huge."""
    shape = tuple(sparse.dims)  # type: ignore[attr-defined]
    if any(dim < 0 for dim in shape) or math.prod(shape) > MAX_DENSE_ELEMENTS:
        raise ModelError(
            f"{where}: cannot make a sparse tensor of dims {list(shape)} dense",
            hint=f"at most {MAX_DENSE_ELEMENTS} elements; store it as an ordinary initializer",
        )
    values = to_array(sparse.values, where, None)  # type: ignore[attr-defined]
    indices = to_array(sparse.indices, where, None)  # type: ignore[attr-defined]
    try:
        if indices.ndim == 2:
            indices = np.ravel_multi_index(tuple(indices.T), shape)
        inside = not indices.size or (indices.min() >= 0 and indices.max() < math.prod(shape))
        if indices.dtype.kind != "i" or indices.shape != values.shape or not inside:
            raise ValueError(f"{values.shape} values, {indices.shape} indices")
    except (IndexError, TypeError, ValueError) as error:
        what = f"indices and values do not fit dims {list(shape)}: {error}"
        raise ModelError(f"{where}: {what}", hint="export the model again") from error
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[indices] = values
    return _shaped(dense, shape, where)


def _shaped(array: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """NumPy has room for 64 dims, and multiplies those around a 0 too."""
    try:
        return array.reshape(shape)
    except ValueError as error:
        what = f"{where} has {len(shape)} dims, {list(shape[:8])}, which no memory holds"
        raise ModelError(what, hint="the file is damaged; export the model again") from error


def _checked_dims(tensor: TensorProto, where: str) -> tuple[int, ...]:
    shape = tuple(tensor.dims)
    if any(dim < 0 for dim in shape):
        raise ModelError(f"{where} has a negative dim: {list(shape)}", hint="export it again")
    if tensor.data_type not in _TYPES:
        raise ModelError(
            f"{where} has the unknown data type {tensor.data_type}",
            hint="a newer onnx package may know it: pip install -U onnx",
        )
    if tensor.HasField("segment"):
        raise ModelError(f"{where} is stored in segments, which ONNX never defined a reader for")
    return shape


def _byte_count(tensor: TensorProto, count: int) -> int:
    if per_byte := _PACKED.get(tensor.data_type):
        return -(-count // per_byte)
    return count * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize


def _typed_array(tensor: TensorProto, where: str, shape: tuple[int, ...]) -> np.ndarray:
    count = math.prod(shape)
    have = sum(len(getattr(tensor, field)) for field in _TYPED_FIELDS)
    complex_parts = 2 if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128) else 1
    want = -(-count // _PACKED.get(tensor.data_type, 1)) * complex_parts
    if have != want:
        raise _length_error(where, shape, have, want, "stored elements")
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(f"{where}: {error}", hint="export the model again") from error


def _length_error(
    where: str, shape: tuple[int, ...], have: int, want: int, unit: str
) -> ModelError:
    return ModelError(
        f"{where} has dims {list(shape)}, which need {want} {unit}, but it holds {have}",
        hint="the file is damaged or its weights were left out; export or download it again",
    )


def _external_bytes(
    tensor: TensorProto, where: str, folder: Path | None, size: int
) -> np.ndarray | bytes:
    """`size` bytes of the file that `tensor` points to, mapped read-only."""
    fields = {entry.key: entry.value for entry in tensor.external_data}
    path = _external_path(fields.get("location", ""), where, folder)
    try:
        offset, length = int(fields.get("offset", 0)), int(fields.get("length", size))
    except ValueError as error:
        raise ModelError(f"{where}: offset or length is not a number: {fields}") from error
    if length != size:
        raise _length_error(where, tuple(tensor.dims), length, size, "bytes of external data")
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{where}: external data '{path}' is not a regular file")
        available = path.stat().st_size
        if offset < 0 or offset + size > available:
            raise ModelError(
                f"{where} needs bytes {offset} to {offset + size} of '{path}', "
                f"which has {available}",
                hint="the data file is incomplete; copy or download it again",
            )
        if size == 0:
            return b""
        return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=(size,))
    except OSError as error:
        raise ModelError(
            f"{where}: cannot read external data '{path}': {error.strerror}",
            hint="keep the data file beside the model, under the name it was exported with",
        ) from error


def _external_path(location: str | bytes, where: str, folder: Path | None) -> Path:
    """Where external data lies, links resolved; only inside the model's folder."""
    if not isinstance(location, str) or not location or "\0" in location:  # bytes: not UTF-8
        raise ModelError(
            f"{where} has external data without a location", hint="export the model with weights"
        )
    if folder is None:
        raise ModelError(
            f"{where} has external data in '{location}', but the model was given in memory",
            hint="give the path of the .onnx file, or load the data with onnx.load first",
        )
    root = Path(os.path.realpath(folder))
    path = Path(os.path.realpath(root / location))
    if os.path.isabs(location) or root not in path.parents:
        raise ModelError(
            f"{where} has external data in '{location}', outside the model's folder '{folder}'",
            hint="put the data file beside the model and save the model with a relative location",
        )
    return path
