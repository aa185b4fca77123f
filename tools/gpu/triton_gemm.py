"""A matrix product in Triton: blocks of rows and columns, the sum in float32, tiles by autotuning.

After the scheme of Triton's matrix multiplication tutorial (grouped order of blocks).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

TILES = (
    (128, 256, 64, 8, 3),
    (128, 128, 64, 4, 4),
    (128, 128, 32, 4, 4),
    (64, 256, 32, 4, 4),
    (128, 64, 32, 4, 4),
    (64, 64, 64, 4, 4),
    (64, 32, 64, 2, 5),
    (32, 64, 64, 2, 5),
    (16, 64, 128, 2, 5),
    (16, 32, 256, 2, 3),
)
CONFIGS = [
    triton.Config({"BM": m, "BN": n, "BK": k, "GROUP": 8}, num_warps=warps, num_stages=stages)
    for m, n, k, warps, stages in TILES
]


@triton.autotune(CONFIGS, key=["M", "N", "K"])
@triton.jit
def kernel(  # type: ignore[no-untyped-def]
    a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0)
    tall, wide = tl.cdiv(M, BM), tl.cdiv(N, BN)
    group = number // (GROUP * wide)
    high = tl.minimum(tall - group * GROUP, GROUP)
    row = (group * GROUP + (number % (GROUP * wide)) % high).to(tl.int64)
    column = ((number % (GROUP * wide)) // high).to(tl.int64)
    m, n, k = row * BM + tl.arange(0, BM), column * BN + tl.arange(0, BN), tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for step in range(tl.cdiv(K, BK)):
        at = step * BK + k
        x = tl.load(a + m[:, None] * K + at[None], (m[:, None] < M) & (at[None] < K), 0.0)
        y = tl.load(b + at[:, None] * N + n[None], (at[:, None] < K) & (n[None] < N), 0.0)
        total = tl.dot(x, y, total, input_precision=PRECISION)
    inside = (m[:, None] < M) & (n[None] < N)
    tl.store(c + m[:, None] * N + n[None], total.to(c.dtype.element_ty), inside)


def product(a: Any, b: Any, tf32: bool) -> Any:
    """a @ b of contiguous matrices."""
    (m, k), (_, n) = a.shape, b.shape
    c = torch.empty((m, n), dtype=a.dtype, device=a.device)
    kernel[lambda meta: (triton.cdiv(m, meta["BM"]) * triton.cdiv(n, meta["BN"]),)](
        a, b, c, m, n, k, PRECISION="tf32" if tf32 else "ieee"
    )
    return c
