"""What prices are made from: candidates as columns of plain numbers.

A rule describes its candidates in these terms (schedules/choices.py), the features are computed
from them (features.py), and a data set stores them. A size that is known at run time only stands
as the usual one (levels.py) and counts in `free`; a dispatcher that prices a range gives columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tvmext.arch import CpuArch

FAMILIES = ("gemm", "conv", "winograd", "depthwise", "attention", "rows", "map", "mma")
"""Kinds of kernel; `family` is the place in this list. "rows" reduce, "map" does not; "mma" are
products by matrix instructions of GPUs, whose register tile is that of a warp."""


VERSION = 2
"""Of the terms: a data set names the one that its rows were described with."""


class Field(NamedTuple):
    """A column: its unit, what it is where a family has no such thing, and what it means."""

    unit: str
    default: float
    meaning: str


FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        # the workload
        "family": Field("index", 0, "which of FAMILIES"),
        "batch": Field("count", 1, "independent products: batch, heads, groups, images"),
        "lines": Field("count", 1, "rows of pixels that tiles do not cross; 1 if they may"),
        "rows": Field("count", 1, "rows of the product: pixels of a line, queries, rows of a norm"),
        "cols": Field("count", 1, "columns: output channels, keys, elements along vectors"),
        "depth": Field("count", 1, "elements summed up for a result"),
        "values": Field("count", 0, "columns of attention's second product"),
        "taps": Field("count", 1, "elements of a window"),
        "stride": Field("count", 1, "elements of input between windows along a row"),
        "pitch": Field("bytes", 0, "between the inputs of neighbouring rows of a tile"),
        "row_bytes": Field("bytes", 0, "input that one more line of outputs reads"),
        "item": Field("bytes", 4, "of an element that is multiplied"),
        "rhs": Field("index", 0, "weight, vectors, memory, sum: how the other operand lies"),
        "staged": Field("bool", 0, "the input is copied first, with its padding"),
        "epilogue": Field("count", 0, "vector operations per result after the sum"),
        "accesses": Field("count", 0, "loads and stores of a point of the light stages"),
        "costly": Field("count", 0, "functions such as exp per point of the light stages"),
        "stages": Field("count", 0, "light stages of the kernel"),
        "masked": Field("bool", 0, "some keys may be hidden"),
        "free": Field("count", 0, "sizes known at run time only"),
        # the decision
        "tile_rows": Field("count", 1, "rows of a register tile"),
        "vectors": Field("count", 1, "vectors of a row of the tile"),
        "lanes": Field("count", 1, "elements of a vector"),
        "step": Field("count", 1, "elements that one instruction adds up in a lane"),
        "packs": Field("bool", 0, "panels are copied at run time"),
        "block": Field("count", 0, "tiles over a panel, or lines of a block; 0 is all"),
        "ahead": Field("bool", 0, "the next panel is fetched into L2"),
        "flat": Field("bool", 0, "pixels are taken across lines"),
        "merged": Field("count", 1, "groups taken together"),
        "winograd": Field("count", 0, "outputs along a dim of a tile of Winograd's method"),
        "values_vectors": Field("count", 0, "vectors of the second product's tile"),
        "values_lanes": Field("count", 0, "lanes of the second product's tile"),
        "unroll": Field("count", 1, "vectors per step of a light stage"),
        "map_lanes": Field("count", 0, "lanes of light stages that add up nothing"),
        "parts": Field("count", 1, "parts that rows are cut into for the cores"),
        "mode": Field("index", 0, "how light stages run: decision.py, MODES of choices_light.py"),
        "parallel": Field("index", 0, "no, blocks of rows, panels"),
        "block_rows": Field("count", 0, "rows of a GPU block's tile"),
        "block_cols": Field("count", 0, "columns of a GPU block's tile"),
        "block_depth": Field("count", 0, "elements of the sum that a GPU block brings at a time"),
        "in_flight": Field("count", 0, "such steps in shared memory at once"),
        "splits": Field("count", 1, "parts of the sum that blocks of their own add up"),
        "copy_bytes": Field("bytes", 0, "that travel to shared memory in one piece, at the least"),
        # the machine
        "vector_bits": Field("bits", 512, "of a vector register"),
        "registers": Field("count", 32, "vector registers"),
        "units": Field("per cycle", 1, "multiply-adds on vectors of `lanes`"),
        "l1": Field("bytes", 32768, "first cache"),
        "l2": Field("bytes", 1 << 20, "second cache"),
        "l3": Field("bytes", 1 << 25, "last cache"),
        "ghz": Field("1e9 / s", 2.5, "clock"),
        "dram": Field("1e9 bytes / s", 10, "memory, one core"),
        "cores": Field("count", 1, "that may be used; multiprocessors of a GPU"),
        "resident": Field("count", 1, "blocks that a multiprocessor has room for"),
        # the analytic price
        "cycles": Field("cycles", 1, "what the rule's own price says, on one core"),
    }
)


@dataclass(frozen=True)
class Terms:
    """Candidates as columns, all of one length; a missing one has its default."""

    columns: Mapping[str, np.ndarray]
    count: int

    @staticmethod
    def of(**columns: Any) -> Terms:
        """From sequences of one length and single numbers. Raises ValueError for other lengths."""
        unknown = columns.keys() - FIELDS.keys()
        if unknown:
            raise ValueError(f"no such terms: {', '.join(sorted(unknown))}")
        arrays = {name: np.asarray(value, np.float64) for name, value in columns.items()}
        lengths = {array.shape[0] for array in arrays.values() if array.ndim}
        if len(lengths) > 1:
            raise ValueError(f"columns of {sorted(lengths)} candidates")
        return Terms(arrays, lengths.pop() if lengths else 1)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column, or its single value as an array without dims."""
        found = self.columns.get(name)
        return np.asarray(FIELDS[name].default) if found is None else found

    def column(self, name: str) -> np.ndarray:
        """A column in full length."""
        return np.broadcast_to(self[name], self.count)

    @property
    def seconds(self) -> np.ndarray:
        """The analytic price, on one core."""
        return self.column("cycles") / (self.column("ghz") * 1e9)

    def plain(self) -> dict[str, list[float]]:
        """All columns, as a data set stores them."""
        return {name: self.column(name).tolist() for name in FIELDS}

    @staticmethod
    def joined(parts: Sequence[Terms]) -> Terms:
        """The candidates of several, one after another."""
        count = sum(part.count for part in parts)
        names = {name for part in parts for name in part.columns}
        stacked = {
            name: np.concatenate(
                [
                    np.atleast_1d(part[name]) if part.count == 1 else part.column(name)
                    for part in parts
                ]
            )
            for name in sorted(names)
        }
        return Terms(stacked, count)


def machine(arch: CpuArch, bits: int | None = None) -> dict[str, float]:
    """The columns of a machine; `bits` is the width of the vectors that are multiplied."""
    return {
        "vector_bits": arch.vector_bits,
        "registers": arch.vector_registers,
        "units": arch.fmas_per_cycle(bits or arch.vector_bits),
        "l1": arch.l1_bytes,
        "l2": arch.l2_bytes,
        "l3": arch.l3_bytes,
        "ghz": arch.ghz,
        "dram": arch.dram_gb_s,
        "cores": arch.cores,
    }
