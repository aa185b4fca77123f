"""Whole blocks: how many kernels only move data, with TVM's fusion alone and with the pass."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes.modules import assert_same, build, random
from tvmext.passes.virtual.views import Views
from tvmext.passes.virtual.virtualize import VirtualTensors

N = tirx.Var("n", "int64")
HEADS, SIZE = 2, 4
STOCK, OURS = 7, 6
"""Kernels that only move data: by fusion alone, and with the pass."""


def attention(bb: relax.BlockBuilder, x: relax.Var, past: relax.Var, n: Any) -> list[relax.Expr]:
    """Keys join a cache and are repeated for the query heads; [1, n, 16] -> [1, n, 8]."""
    parts = bb.emit(op.split(x, [HEADS * SIZE, HEADS * SIZE + SIZE], 2))
    query, key, value = (bb.emit(relax.TupleGetItem(parts, k)) for k in range(3))
    query = bb.emit(op.permute_dims(bb.emit(op.reshape(query, (1, n, HEADS, SIZE))), [0, 2, 1, 3]))
    cache = bb.emit(op.concat([past, bb.emit(op.expand_dims(key, [1]))], 2))
    keys = bb.emit(op.broadcast_to(bb.emit(op.expand_dims(cache, [2])), (1, 1, HEADS, n + 3, SIZE)))
    keys = bb.emit(
        op.permute_dims(bb.emit(op.reshape(keys, (1, HEADS, n + 3, SIZE))), [0, 1, 3, 2])
    )
    scores = bb.emit(op.nn.softmax(bb.emit(op.matmul(query, keys))))
    rows = bb.emit(op.strided_slice(scores, [3], [3], [n + 3], assume_inbound=True))
    wide = bb.emit(op.broadcast_to(bb.emit(op.expand_dims(value, [1])), (1, HEADS, n, SIZE)))
    mixed = bb.emit(op.permute_dims(bb.emit(op.matmul(rows, wide)), [0, 2, 1, 3]))
    return [op.nn.softmax(bb.emit(op.reshape(mixed, (1, n, HEADS * SIZE)))), cache]


def movement_kernels(mod: tvm.IRModule, views: tvm.transform.Pass) -> int:
    """Kernels that main calls after fusion and that only read, select and store."""
    passes = [
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        views,
        transform.DeadCodeElimination(),
    ]
    mod = tvm.transform.Sequential(passes)(mod)
    values = [b.value for block in mod["main"].body.blocks for b in block.bindings]
    calls = [v for v in values if isinstance(v, relax.Call) and v.op.name == "relax.call_tir"]
    return sum(_moves(mod[call.args[0]]) for call in calls)


def _moves(func: tirx.PrimFunc) -> bool:
    stores: list[Any] = []
    tvm_ffi.structural_walk(func.body, (tirx.BufferStore, stores.append))
    return all(_copies(store.value) for store in stores)


def _copies(value: Any) -> bool:
    if isinstance(value, tvm.ir.Call) and value.op.name == "prim.if_then_else":
        return all(map(_copies, value.args[1:]))
    return isinstance(value, tvm.ir.TensorLoad | tirx.IntImm | tirx.FloatImm)


def block(n: Any) -> tvm.IRModule:
    inputs = [("x", (1, n, 16), "float32"), ("past", (1, 1, 3, SIZE), "float32")]
    return build(inputs, lambda bb, x, past: attention(bb, x, past, n))


def test_an_attention_block_with_a_cache() -> None:
    mod = block(5)
    after = VirtualTensors()(mod)
    assert movement_kernels(mod, transform.RewriteDataflowReshape()) == STOCK
    assert movement_kernels(after, Views()) == OURS
    assert_same(mod, after, random(1, 5, 16), random(1, 1, 3, SIZE, seed=1))


def test_a_symbolic_size_makes_no_difference() -> None:
    assert movement_kernels(VirtualTensors()(block(N)), Views()) == OURS
