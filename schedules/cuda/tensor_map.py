"""Operands that the tensor memory accelerator brings: boxes of a strided tensor, by its map.

    x[base + minor + step * major + sum_i s_i * b_i]         minor, major: the sum and the own axes

The map (base, extents, strides, box) is encoded on the host at every launch and is a parameter of
the kernel (CUDA driver API, cuTensorMapEncodeTiled). What lies outside of the extents arrives as
zeros, so ragged edges take no care.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm
from tvm import sym, tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from tvmext.arch import dtype_bits

from ..kernel.analysis import Axis, analyzer, constant, flat_index, stride, substitute, variables
from ..kernel.contraction import size
from ..kernel.emit import Size, Values, block, index, most
from . import hopper_ptx
from .operand import Source
from .ptx import CHUNK_BYTES

MOST_DIMS = 5
"""Dims of a tensor map (CUDA driver API, cuTensorMapEncodeTiled)."""
_SWIZZLES = {32: 1, 64: 2, 128: 3}  # CUtensorMapSwizzle, by bytes
_PROMOTION = 2  # CU_TENSOR_MAP_L2_PROMOTION_L2_128B
_ENCODE = "runtime.cuTensorMapEncodeTiled"
_ROUNDED = 11  # CU_TENSOR_MAP_DATA_TYPE_TFLOAT32


@dataclass(frozen=True, eq=False)
class Strided:
    """An operand as a strided tensor; `steps` are elements, of the major dim and of the batch."""

    base: Expr
    """The element at the origin."""
    minor: Size
    major: Size
    batch: tuple[Axis, ...]
    steps: tuple[Expr, ...]


def strided(
    source: Source, batch: Sequence[Axis], own: Sequence[Axis], inner: Sequence[Axis]
) -> Strided | None:
    """`source` as a strided tensor whose base and steps are multiples of 16 bytes; None if not."""
    if source.load is None or source.guard is not None or source.run_bytes != CHUNK_BYTES:
        return None
    axes = (*batch, *own, *inner)
    flat, ana = flat_index(source.load), analyzer(axes, source.load.source.shape)
    minor, major = (inner, own) if source.inward else (own, inner)
    steps = [_step(flat, group, axes, ana) for group in (minor, major)]
    if steps[0] is None or steps[1] is None or constant(steps[0]) != 1:
        return None
    found: list[tuple[Axis, Expr]] = []
    for axis in batch:
        step = stride(flat, axis.var, ana)
        if step is None or not _constant_over(step, axes):
            return None
        if constant(step) != 0:
            found.append((axis, step))
    if len(found) + 2 > MOST_DIMS:
        return None
    zeros = {axis.var: tirx.const(0, "int64") for axis in axes}
    return Strided(
        tirx.address_of(substitute(source.load, zeros)),
        size(minor),
        size(major),
        tuple(axis for axis, _ in found),
        (steps[1], *(step for _, step in found)),
    )


def _step(
    flat: Expr, group: Sequence[Axis], axes: Sequence[Axis], ana: sym.Analyzer
) -> Expr | None:
    """Elements from a point of `group` to the next in row-major order, if always as many."""
    last = stride(flat, group[-1].var, ana)
    if last is None or not _constant_over(last, axes):
        return None
    expected = last
    for axis, inside in zip(reversed(group[:-1]), reversed(group)):
        expected = expected * inside.extent
        here = stride(flat, axis.var, ana)
        if here is None or not ana.can_prove_equal(here, expected):
            return None
    return last


def _constant_over(step: Expr, axes: Sequence[Axis]) -> bool:
    return not {axis.var for axis in axes} & variables(step)


class TensorMap:
    """The map of one operand, in boxes of `box_minor` by `box_major` elements.

    Numbers of float32 are rounded to tfloat32 on their way, as matrix instructions want them.
    """

    def __init__(
        self, name: str, tensor: Strided, dtype: str, box_minor: int, box_major: int
    ) -> None:
        self.tensor, self.dtype = tensor, dtype
        self.box = (box_minor, box_major, *(1 for _ in tensor.batch))
        self.var = Var(name, tvm.ir.PointerType(tirx.TensorMapType()))

    def encode(self) -> Stmt:
        """On the host, before the launch."""
        tensor, element = self.tensor, dtype_bits(self.dtype) // 8
        sizes = (tensor.minor, tensor.major, *(axis.extent for axis in tensor.batch))
        rank = len(sizes)
        numbers = [
            *(index(most(n, 1)) for n in sizes),
            *(index(1) * step * element for step in tensor.steps),
            *self.box,
            *[1] * rank,
        ]
        options = [0, _SWIZZLES[self.box[0] * element], _PROMOTION, 0]
        if self.dtype == "float32":
            options.append(_ROUNDED)
        return block(
            tirx.Bind(self.var, tirx.tvm_stack_alloca("tensormap", 1)),
            tirx.Evaluate(
                tirx.call_packed(
                    _ENCODE, self.var, self.dtype, rank, tensor.base, *numbers, *options
                )
            ),
        )

    def copy(self, target: Expr, minor: Expr, major: Expr, at: Values, barrier: Expr) -> Stmt:
        """On the GPU: the box from (minor, major) of a batch to shared memory."""
        places = (minor, major, *(at[axis.var] for axis in self.tensor.batch))
        return hopper_ptx.copy_tensor(
            target,
            tirx.address_of(self.var),
            [tirx.Cast("int32", place) for place in places],
            barrier,
        )
