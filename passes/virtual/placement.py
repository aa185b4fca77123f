"""Kernels store for the one that reads them: through its map, with its arithmetic.

    t = call_tir(kernel, (x, w))
    y = call_tir(reader, (t, r))      becomes     y = call_tir(kernel', (x, w, r))
                                                  kernel' = { blocks of kernel;  those of reader }

where nobody else reads `t` and the reader computes element by element: the schedule rule of the
kernel takes its blocks into the store stage, and `t` is never in memory. FuseOps does this as long
as nothing is moved in between; here `t` may be reshaped or turned, and the price decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

from tvmext.frontends.dims import Dim

from .check import PRICED
from .joining import BLOCKED, Reading
from .pairs import Candidate, Pairs, joined, reduces
from .ranges import ranges

SPATIAL = ("elementwise",)
"""Rules of kernels without a reduction."""


@tvm.transform.module_pass(opt_level=0, name="JoinStores")
class JoinStores:
    """Join kernels with the movement of what they make: where that is cheaper, or always.

    With `memory`, whatever the kernels' rules take is joined, because it saves a tensor.
    """

    def __init__(
        self, reading: Reading, memory: bool = False, dims: Mapping[str, Dim] | None = None
    ) -> None:
        self.reading = reading
        self.memory = memory
        self.ranges = ranges(dims or {})

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return joined(mod, self.reading, self.ranges, self._joined)

    def _joined(self, pairs: Pairs, reader: relax.VarBinding) -> Candidate | str | None:
        """The reader joined with the kernel before it, or why it is not."""
        found = _candidate(pairs, reader)
        weights = self.ranges.weights
        if not isinstance(found, Candidate) or self.memory or found.pays(weights):
            return found
        apart, joint = (float((weights * c).sum()) for c in (found.apart, found.cycles))
        return f"priced: {apart:.0f} cycles apart, {joint:.0f} joined"


def _candidate(pairs: Pairs, reader: relax.VarBinding) -> Candidate | str | None:
    """The reader joined with the kernel before it, or why that is not possible."""
    if pairs.is_view(reader) or reduces(pairs.mod[reader.value.args[0]]):
        return None
    for arg in reader.value.args[1].fields:
        chain = pairs.chain(arg)
        if not chain:
            continue
        (before, price), (own, cycles) = map(pairs.read, (chain[0].value, reader.value))
        if own not in SPATIAL or before in (*SPATIAL, ""):
            continue
        func, args = pairs.together([*chain, reader])
        after, both = pairs.price(func, args)
        if after != before and (before, after) not in BLOCKED:
            faster = before.startswith(f"{after}, ")  # by another method, such as Winograd's
            return f"{f'{PRICED}: ' * faster}'{before}' does not store through it, '{after}' would"
        return Candidate(reader, func, args, both, price + cycles)
    return None
