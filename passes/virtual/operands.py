"""Kernels compute what they read: element by element, where they stage it anyway.

    t = call_tir(elementwise, (x, s))
    y = call_tir(product, (t, w))     becomes     y = call_tir(product', (x, s, w))
                                                  product' = { block of elementwise;  of product }

where nobody else reads `t`. A product that reads few elements at a time from a block of rows has
them from a stage that stays in the caches, and fills it by the arithmetic of `t`, through the map
of its operands: the batch norm and relu over a concat that begin every layer of a DenseNet. That
reads and computes what the kernel for `t` would, and saves writing it; so it is done unless the
product itself is priced much dearer for it. Planned memory does not grow: what `t` is made of lives
on, until the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmext.frontends.dims import Dim

from .check import moves
from .joining import BLOCKED, Reading
from .pairs import Candidate, Pairs, joined, reduces
from .ranges import ranges

STAGING = ("gemm", "conv")
"""Rules of the products whose operands may be staged."""

DEARER = 1.25
"""What a stage may add to the price of a product; more is not its arithmetic, but how it reads."""


@tvm.transform.module_pass(opt_level=0, name="JoinOperands")
class JoinOperands:
    """Join products with the elementwise kernels that make what they read."""

    def __init__(self, reading: Reading, dims: Mapping[str, Dim] | None = None) -> None:
        self.reading = reading
        self.ranges = ranges(dims or {})

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return joined(mod, self.reading, self.ranges, self._joined)

    def _joined(self, pairs: Pairs, product: relax.VarBinding) -> Candidate | None:
        """A product joined with the kernel that makes an operand, if that is possible and pays."""
        if pairs.is_view(product) or not reduces(pairs.mod[product.value.args[0]]):
            return None
        for arg in product.value.args[1].fields:
            chain = pairs.chain(arg)
            if not chain or not _pointwise(pairs, chain[0]) or pairs.outlives(chain[0], product):
                continue
            rule, cycles = pairs.read(product.value)
            if rule not in STAGING:
                return None
            func, args = pairs.together([*chain, product])
            after, both = pairs.price(func, args)
            if (after == rule or (rule, after) in BLOCKED) and np.all(both <= DEARER * cycles):
                return Candidate(product, func, args, both, cycles)
        return None


def _pointwise(pairs: Pairs, kernel: relax.VarBinding) -> bool:
    """Whether a kernel computes element by element, and does not only move them."""
    func = pairs.mod[kernel.value.args[0]]
    return not reduces(func) and not moves(func)
