"""Products of a few rows with weights of 4 bits in blocks, which become floats in registers.

    y[r, n] = sum over b of  scale[n, b] * (sum over k in b of  x[r, k] * bits[n, k]
                                            - zero[n, b] * sum over k in b of x[r, k])

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
VECTOR = tirx.ForKind.VECTORIZED


@dataclass(frozen=True, eq=False)
class Blocks:
    """``(bits - zero) * scale``: `bits` int8[columns, blocks, elements] of -8 to 7; `scale` and
    `zero` [columns, blocks, 1]; `zero` is None where all are 0."""

    bits: np.ndarray
    zero: np.ndarray | None
    scale: np.ndarray

    @property
    def depth(self) -> int:
        return self.bits.shape[1] * self.bits.shape[2]

    def packed(self) -> list[np.ndarray]:
        """Words int32[panel, word, column], then scales and zeros float32[panel, block, column]."""
        columns = self.bits.shape[0]
        words = self.bits.reshape(columns, -1, IN_WORD).astype(np.uint32) & 15
        shifts = np.arange(IN_WORD, dtype=np.uint32) * 4
        joined = np.bitwise_or.reduce(words << shifts, axis=-1).view(np.int32)
        found = [joined, self.scale[..., 0].astype(np.float32)]
        if self.zero is not None:
            found.append(self.zero[..., 0].astype(np.float32))
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
        return _centred(bits, zero, scale)

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


def _centred(bits: np.ndarray, zero: np.ndarray, scale: np.ndarray) -> Blocks | None:
    """Numbers about 0; None if they have more than 4 bits."""
    zero = np.broadcast_to(zero, scale.shape).astype(np.int32)
    middle = int(zero.flat[0]) if np.all(zero == zero.flat[0]) else 8 * int(bits.min() >= 0)
    moved = bits.astype(np.int32) - middle
    if moved.size == 0 or moved.min() < -8 or moved.max() > 7:
        return None
    left = zero - middle
    return Blocks(moved.astype(np.int8), left if left.any() else None, scale)


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
    level = _local([rows], "level")

    def vectors(body: Callable[[Expr, Expr], tirx.Stmt]) -> tirx.Stmt:
        return _all(_loop(COLUMNS, lambda c, r=r: body(_i(r), c), VECTOR) for r in range(rows))  # type: ignore[misc]

    def clear(buffer: Var) -> tirx.Stmt:
        return vectors(lambda r, c: tirx.BufferStore(buffer, _f(0), [r, c]))

    def panel(p: Expr) -> tirx.Stmt:
        def word(at: Expr) -> tirx.Stmt:
            def add(j: int, r: Expr, c: Expr) -> tirx.Stmt:
                top = words[p, at, c] << tirx.const(28 - 4 * j, "int32")
                bits = (top >> tirx.const(28, "int32")).astype("float32")
                value = part[r, c] + x[r, at * IN_WORD + j] * bits
                return tirx.BufferStore(part, value, [r, c])

            return _all(vectors(partial(add, j)) for j in range(IN_WORD))

        def scaled(b: Expr, r: Expr, c: Expr) -> tirx.Stmt:
            found = part[r, c]
            if zeros:
                found = found - zeros[0][p, b, c] * level[r]
            return tirx.BufferStore(total, total[r, c] + found * scales[p, b, c], [r, c])

        def sum_up(b: Expr, r: int) -> tirx.Stmt:
            def more(k: Expr) -> tirx.Stmt:
                return tirx.BufferStore(level, level[r] + x[r, b * size + k], [_i(r)])

            return _all([tirx.BufferStore(level, _f(0), [_i(r)]), _loop(size, more)])

        def one_block(b: Expr) -> tirx.Stmt:
            inside = size // IN_WORD
            levels = [sum_up(b, r) for r in range(rows)] if zeros else []
            sums = _loop(inside, lambda w: word(b * inside + w))
            return _all([*levels, clear(part), sums, vectors(partial(scaled, b))])

        def store(r: Expr, c: Expr) -> tirx.Stmt:
            return tirx.BufferStore(out, total[r, c], [r, p * COLUMNS + c])

        def some(c: Expr) -> tirx.Stmt:
            inside = p * COLUMNS + c < columns
            return tirx.IfThenElse(inside, _all(store(_i(r), c) for r in range(rows)), None)

        buffers = [total, part, *([level] if zeros else [])]
        result = _loop(COLUMNS, some) if columns % COLUMNS else vectors(store)
        made = map(tirx.AllocBuffer, buffers)
        return _all([*made, clear(total), _loop(count, one_block), result])

    return _loop(-(-columns // COLUMNS), panel, tirx.ForKind.PARALLEL)


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
