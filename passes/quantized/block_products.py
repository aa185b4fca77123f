"""Products of a few rows with weights of 4 bits in blocks, which become floats in registers.

    y[r, n] = sum over b of  scale[n, b] * (sum over k in b of  x[r, k] * (bits[n, k] - zero[n, b]))
            = sum over b of  16 scale[n, b] * (sum over k in b of  x[r, k] * (1 + bits[n, k] / 16)
                                               - (1 + zero[n, b] / 16) * sum over k in b of x[r, k])

where ``1 + bits / 16`` is a float32 whose mantissa begins with the bits: shifted there, no more.
Where x is infinite, y is NaN.

Such a product is bound by the bytes of the weight, and in 4 bits there are an eighth as many. Eight
of them, along the sum, lie in a word of 32 bits; a vector has words of as many columns as it has
lanes. With more than a few rows the weight is made floats at compile time instead, as always.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, tirx
from tvm.ir import Expr, Var
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.tirx import IntImm

from ..constants import constant
from ..rewrite import rewrite
from .operand import bound, called, value_of

MOST_ROWS = 4
"""Each row costs a product for every weight that is unpacked; beyond, arithmetic bounds it."""
COLUMNS = 64
"""Of a panel: four chains of additions of 16 lanes, which hide the latency of an FMA."""
IN_WORD = 8
MANTISSA, ONE = 23, 0x3F800000
"""Bits of the mantissa of a float32, and those of 1.0."""
VECTOR = tirx.ForKind.VECTORIZED


@dataclass(frozen=True, eq=False)
class Blocks:
    """``(bits - zero) * scale``: `bits` [columns, blocks, elements] of 0 to 15; `scale` and `zero`
    [columns, blocks, 1]."""

    bits: np.ndarray
    zero: np.ndarray
    scale: np.ndarray

    @property
    def depth(self) -> int:
        return self.bits.shape[1] * self.bits.shape[2]

    @property
    def middle(self) -> float | None:
        """``1 + zero / 16`` where it is the same everywhere."""
        first = self.zero.flat[0]
        return 1 + first / 16 if np.all(self.zero == first) else None

    def packed(self) -> list[np.ndarray]:
        """Words uint32[panel, word, column], then float32[panel, block, column]: scales, and where
        they differ zeros, as the kernel takes them."""
        columns = self.bits.shape[0]
        words = self.bits.reshape(columns, -1, IN_WORD).astype(np.uint32)
        shifts = np.arange(IN_WORD, dtype=np.uint32) * 4
        joined = np.bitwise_or.reduce(words << shifts, axis=-1)
        found = [joined, self.scale[..., 0].astype(np.float32) * np.float32(16)]
        if self.middle is None:
            found.append(1 + self.zero[..., 0].astype(np.float32) / 16)
        return [_in_panels(array) for array in found]


def _in_panels(array: np.ndarray) -> np.ndarray:
    panels = -(-len(array) // COLUMNS)
    padded = np.zeros((panels * COLUMNS, array.shape[1]), array.dtype)
    padded[: len(array)] = array
    return np.ascontiguousarray(padded.reshape(panels, COLUMNS, -1).transpose(0, 2, 1))


@tvm.transform.module_pass(opt_level=1, name="BlockProducts")
class BlockProducts:
    """Keep the weights of products of a few rows in 4 bits."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if not called(call, "matmul") or str(call.ty.dtype) != "float32":
            return call
        shape = [dim.value for dim in call.ty.shape if isinstance(dim, IntImm)]
        if len(shape) < call.ty.ndim or not 0 < math.prod(shape[:-1]) <= MOST_ROWS:
            return call
        blocks = self._blocks(call.args[1])
        if blocks is None:
            return call
        flat = [math.prod(shape[:-1]), blocks.depth]
        x = self.builder_.emit(relax.op.reshape(call.args[0], flat))
        weights = [constant(array) for array in blocks.packed()]
        product = self.builder_.call_te(
            lambda *tensors: _product(blocks, *tensors), x, *weights,
            primfunc_name_hint="matmul_4_bits",
        )  # fmt: skip
        return relax.op.reshape(self.builder_.emit(product), shape)

    def _blocks(self, weight: relax.Expr) -> Blocks | None:
        """``permute_dims(reshape((bits - zero) * scale))``, of constants."""
        steps = []
        for name in ("permute_dims", "reshape", "multiply"):
            step = bound(weight, self.lookup_binding)
            if not called(step, name):
                return None
            steps.append(step)
            weight = step.args[0]
        turned, flat, product = steps
        if turned.ty.ndim != 2 or len(product.ty.shape) != 3:
            return None
        scale, pair = self._value(product.args[1]), self._difference(product.args[0])
        dims = [int(dim) for dim in product.ty.shape]
        if scale is None or pair is None or [int(n) for n in flat.ty.shape] != [
            dims[0], dims[1] * dims[2],
        ]:  # fmt: skip
            return None
        bits, zero = pair
        if bits.shape != tuple(dims) or scale.shape != (*dims[:2], 1) or dims[2] % IN_WORD:
            return None
        return _of_4_bits(bits, zero, scale)

    def _value(self, expr: relax.Expr) -> np.ndarray | None:
        return value_of(expr, self.lookup_binding)

    def _difference(self, exact: relax.Expr) -> tuple[np.ndarray, np.ndarray] | None:
        """The terms of ``float(int32(bits) - int32(zero))``."""
        step = bound(exact, self.lookup_binding)
        step = bound(step.args[0], self.lookup_binding) if called(step, "astype") else step
        if not called(step, "subtract"):
            return None
        bits, zero = map(self._value, step.args)
        return None if bits is None or zero is None else (bits, zero)


def _of_4_bits(bits: np.ndarray, zero: np.ndarray, scale: np.ndarray) -> Blocks | None:
    """Bits of 0 to 15; None if there are more of them."""
    least = min(int(bits.min(initial=0)), 0)
    if bits.size == 0 or least < -8 or int(bits.max()) - least > 15:
        return None
    moved = -8 if least else 0
    zeros = np.broadcast_to(zero, scale.shape).astype(np.int32) - moved
    return Blocks(bits.astype(np.int32) - moved, zeros, scale)


def _product(blocks: Blocks, x: te.Tensor, *weights: te.Tensor) -> te.Tensor:
    rows, columns = int(x.shape[0]), blocks.bits.shape[0]
    out = tirx.decl_buffer([rows, columns], "float32", "out", layout=None)
    return te.extern(
        [(rows, columns)],
        [x, *weights],
        lambda read, written: _kernel(blocks, list(read), written[0], rows),
        dtype="float32",
        out_buffers=[out],
        name="matmul_4_bits",
    )


def _kernel(blocks: Blocks, read: list[Var], out: Var, rows: int) -> tirx.Stmt:
    """For panel, block: the sums of a block, then scaled onto those of the row."""
    x, words, scales, *zeros = read
    columns, count, size = blocks.bits.shape
    total, part = (_local([rows, COLUMNS], name) for name in ("total", "part"))
    level = tirx.decl_buffer([_i(rows), _i(count)], "float32", "level")

    def vectors(body: Callable[[Expr, Expr], tirx.Stmt]) -> tirx.Stmt:
        return _all(_loop(COLUMNS, lambda c, r=r: body(_i(r), c), VECTOR) for r in range(rows))  # type: ignore[misc]

    def clear(buffer: Var) -> tirx.Stmt:
        return vectors(lambda r, c: tirx.BufferStore(buffer, _f(0), [r, c]))

    def panel(p: Expr) -> tirx.Stmt:
        def word(at: Expr) -> tirx.Stmt:
            def add(j: int, r: Expr, c: Expr) -> tirx.Stmt:
                place = MANTISSA - 4 - 4 * j
                bits = words[p, at, c] << _u(place) if place > 0 else words[p, at, c] >> _u(-place)
                top = tirx.bitwise_and(bits, _u(15 << MANTISSA - 4))
                real = tirx.reinterpret("float32", tirx.bitwise_or(top, _u(ONE)))
                value = part[r, c] + x[r, at * IN_WORD + j] * real
                return tirx.BufferStore(part, value, [r, c])

            return _all(vectors(partial(add, j)) for j in range(IN_WORD))

        def scaled(b: Expr, r: Expr, c: Expr) -> tirx.Stmt:
            zero = zeros[0][p, b, c] if zeros else _f(blocks.middle or 0)
            found = part[r, c] - zero * level[r, b]
            return tirx.BufferStore(total, total[r, c] + found * scales[p, b, c], [r, c])

        def one_block(b: Expr) -> tirx.Stmt:
            inside = size // IN_WORD
            sums = _loop(inside, lambda w: word(b * inside + w))
            return _all([clear(part), sums, vectors(partial(scaled, b))])

        def store(r: Expr, c: Expr) -> tirx.Stmt:
            return tirx.BufferStore(out, total[r, c], [r, p * COLUMNS + c])

        def some(c: Expr) -> tirx.Stmt:
            inside = p * COLUMNS + c < columns
            return tirx.IfThenElse(inside, _all(store(_i(r), c) for r in range(rows)), None)

        result = _loop(COLUMNS, some) if columns % COLUMNS else vectors(store)
        made = map(tirx.AllocBuffer, (total, part))
        return _all([*made, clear(total), _loop(count, one_block), result])

    def sum_up(r: Expr, b: Expr) -> tirx.Stmt:
        def more(k: Expr) -> tirx.Stmt:
            return tirx.BufferStore(level, level[r, b] + x[r, b * size + k], [r, b])

        return _all([tirx.BufferStore(level, _f(0), [r, b]), _loop(size, more)])

    levels = _loop(rows, lambda r: _loop(count, lambda b: sum_up(r, b)))
    panels = _loop(-(-columns // COLUMNS), panel, tirx.ForKind.PARALLEL)
    return _all([tirx.AllocBuffer(level), levels, panels])


def _all(parts: Iterable[tirx.Stmt]) -> tirx.Stmt:
    found = list(parts)
    return found[0] if len(found) == 1 else tirx.SeqStmt(found)


def _loop(
    extent: int, body: Callable[[Expr], tirx.Stmt], kind: tirx.ForKind = tirx.ForKind.SERIAL
) -> tirx.Stmt:
    var = Var("i", "int64")
    return tirx.For(var, _i(0), _i(extent), kind, body(var))


def _local(shape: list[int], name: str) -> Var:
    return tirx.decl_buffer([_i(n) for n in shape], "float32", name, scope="local")


def _i(value: int) -> Expr:
    return tirx.const(value, "int64")


def _f(value: float) -> Expr:
    return tirx.const(value, "float32")


def _u(value: int) -> Expr:
    return tirx.const(value, "uint32")
