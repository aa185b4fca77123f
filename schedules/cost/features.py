"""What the learned model sees: features of candidates, computed from their terms (terms.py).

One table: name, unit, formula. Weights name the VERSION that they were trained with and are refused
by any other: whoever changes a formula, the order or a term counts it up. A data set stores terms,
which have a version of their own. Sizes come as logarithms, memory as logarithms of its share of a
cache, so that what is twice as large on a machine with caches twice as large looks the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .terms import FAMILIES, Terms

VERSION = 3

PAGE = 4096

ACROSS = 2
"""`rhs` of products whose columns lie apart in memory."""

LEAST_SHARE = 2.0**-12
"""Of the work of a product, below which a part of it is none."""

Array = np.ndarray


class Feature(NamedTuple):
    """A column of the matrix that a model is given; `of` computes it from `Sizes`."""

    name: str
    unit: str
    formula: str
    of: Callable[[Sizes], Array]


class Sizes:
    """Terms, and what several features have in common. Every division is of positive numbers."""

    def __init__(self, t: Terms) -> None:
        self.t = t
        self.rows, self.cols, self.depth = (np.maximum(t[n], 1) for n in ("rows", "cols", "depth"))
        self.height, self.vectors = np.maximum(t["tile_rows"], 1), np.maximum(t["vectors"], 1)
        self.width = self.vectors * np.maximum(t["lanes"], 1)
        self.tiles = np.ceil(self.rows / self.height)
        self.panels = np.ceil(self.cols / self.width)
        # Tiles are of nearly equal height, and no wider than the product.
        self.highest = np.ceil(self.rows / self.tiles)
        self.filled = np.minimum(self.vectors, np.ceil(self.cols / np.maximum(t["lanes"], 1)))
        self.chains = self.highest * self.filled
        self.last = self.cols - (self.panels - 1) * self.width
        self.over = np.maximum(t["batch"], 1) * np.maximum(t["lines"], 1)
        self.flops = 2 * self.over * self.rows * self.cols * self.depth
        self.lhs = t["item"] * self.over * self.rows * self.depth / np.maximum(t["taps"], 1)
        self.rhs = t["item"] * t["batch"] * self.cols * self.depth
        self.out = 4 * self.over * self.rows * self.cols
        self.moved = self.lhs + self.rhs + self.out
        self.under_tile = t["item"] * self.height * self.depth
        self.panel = t["item"] * self.width * self.depth
        self.points = self.cols * self.depth
        self.row_vectors = np.ceil(self.points / np.maximum(t["lanes"], 1))
        whole = np.floor(self.points / np.maximum(t["lanes"], 1))
        self.whole_vectors = np.maximum(t["block"], 1) * whole
        self.block = np.where(t["block"] > 0, t["block"], self.tiles)


def _log(values: Array) -> Array:
    return np.log2(np.maximum(values, 1e-9))


def _term(name: str) -> Callable[[Sizes], Array]:
    return lambda s: s.t[name]


def _log_term(name: str) -> Callable[[Sizes], Array]:
    return lambda s: np.log2(np.maximum(s.t[name], 0) + 1)


def _family(number: int) -> Callable[[Sizes], Array]:
    return lambda s: s.t["family"] == number


def _conflicts(s: Sizes) -> Array:
    """Rows of a tile for each place of L1 that rows so far apart may take."""
    pitch = np.maximum(s.t["pitch"], 1).astype(np.int64)
    places = np.maximum(s.t["l1"] // PAGE - 1, 1) * (PAGE // np.gcd(pitch, PAGE))
    return s.height / places


def _light(values: Array, s: Sizes) -> Array:
    """Of norms, softmax, reductions and elementwise kernels; 0 elsewhere."""
    family = s.t["family"]
    light = (family == FAMILIES.index("rows")) | (family == FAMILIES.index("map"))
    return np.where(light, values, 0)


def _left_over(s: Sizes) -> Array:
    """Vectors of a row after its last whole step: none leaves out the loop for the rest."""
    lanes = np.maximum(s.t["lanes"], 1)
    return np.mod(s.points, lanes * np.maximum(s.t["unroll"], 1)) / lanes


def _panel_fill(s: Sizes) -> Array:
    """Columns over those computed: what is no weight has a last panel as narrow as it may be."""
    lanes = np.maximum(s.t["lanes"], 1)
    narrow = (s.t["packs"] > 0) | (s.t["rhs"] > 0)
    vectors = (s.panels - 1) * s.vectors + np.ceil(s.last / lanes)
    return s.cols / (np.where(narrow, vectors, s.panels * s.vectors) * lanes)


def _turned(s: Sizes) -> Array:
    """Elements of `rhs` that are packed in squares, those of whole vectors both ways."""
    side = np.clip(s.t["lanes"], 1, 16)
    squares = np.floor(s.width / side) * (s.panels - 1) + np.floor(s.last / side)
    return squares * np.floor(s.depth / side) * side**2


def _packing(elements: Callable[[Sizes], Array]) -> Callable[[Sizes], Array]:
    """Elements for each multiplication of a vector, where columns are turned to be packed."""

    def share(s: Sizes) -> Array:
        across = (s.t["rhs"] == ACROSS) & (s.t["packs"] > 0)
        work = s.rows * s.points / np.maximum(s.t["lanes"], 1)
        return np.where(across, _log(elements(s) / work + LEAST_SHARE), np.log2(LEAST_SHARE))

    return share


def _out_panel(s: Sizes) -> Array:
    """Bytes of results of a panel: lines that two panels share come again after so many."""
    return 4 * np.minimum(s.block * s.height, s.rows) * s.width


def _balance(s: Sizes) -> Array:
    tasks = s.over * s.panels
    return tasks / (np.ceil(tasks / s.t["cores"]) * s.t["cores"])


def _waves(s: Sizes) -> Array:
    tiles = np.ceil(s.rows / np.maximum(s.t["block_rows"], 1))
    tiles = tiles * np.ceil(s.cols / np.maximum(s.t["block_cols"], 1))
    return s.over * tiles * s.t["splits"] / (s.t["cores"] * np.maximum(s.t["resident"], 1))


FEATURES: tuple[Feature, ...] = (
    *(
        Feature(f"is_{name}", "bool", f"family = {name}", _family(number))
        for number, name in enumerate(FAMILIES)
    ),
    # the workload
    *(
        Feature(f"log_{name}", "log2", f"log2({name} + 1)", _log_term(name))
        for name in ("batch", "lines", "rows", "cols", "depth", "values", "pitch", "row_bytes")
    ),
    *(
        Feature(name, unit, name, _term(name))
        for name, unit in (
            ("taps", "count"),
            ("stride", "count"),
            ("item", "bytes"),
            ("rhs", "index"),
            ("staged", "bool"),
            ("epilogue", "count"),
            ("accesses", "count"),
            ("costly", "count"),
            ("stages", "count"),
            ("masked", "bool"),
            ("free", "count"),
        )
    ),
    Feature("log_flops", "log2", "log2(2 batch lines rows cols depth)", lambda s: _log(s.flops)),
    Feature(
        "intensity", "log2(flops / byte)", "log2(flops / (lhs + rhs + out))",
        lambda s: _log(s.flops / s.moved),
    ),
    # the decision
    *(
        Feature(name, unit, name, _term(name))
        for name, unit in (
            ("tile_rows", "count"),
            ("vectors", "count"),
            ("lanes", "count"),
            ("step", "count"),
            ("packs", "bool"),
            ("ahead", "bool"),
            ("flat", "bool"),
            ("merged", "count"),
            ("winograd", "count"),
            ("values_vectors", "count"),
            ("values_lanes", "count"),
            ("unroll", "count"),
            ("parts", "count"),
            ("mode", "index"),
            ("parallel", "index"),
        )
    ),
    Feature("log_block", "log2", "log2(block + 1)", _log_term("block")),
    *(
        Feature(f"log_{name}", "log2", f"log2({name} + 1)", _log_term(name))
        for name in ("tile_rows", "vectors", "lanes", "values_vectors", "unroll")
    ),
    # how the decision suits the workload; highest = ceil(rows / tiles) is the height of most tiles
    Feature("highest", "count", "ceil(rows / tiles)", lambda s: s.highest),
    Feature("chains", "count", "highest min(vectors, ceil(cols / lanes))", lambda s: s.chains),
    Feature(
        "tile_steps", "log2", "log2(chains depth): of a tile, unrolled where sums are short",
        lambda s: _log(s.chains * s.depth),
    ),
    Feature(
        "tile_cycles", "log2", "log2(cycles / (batch lines tiles panels))",
        lambda s: _log(s.t["cycles"] / (s.over * s.tiles * s.panels)),
    ),
    Feature(
        "stores", "log2", "log2((1 + epilogue) / depth): for each multiplication",
        lambda s: _log((1 + s.t["epilogue"]) / s.depth),
    ),
    Feature(
        "registers_used", "share", "(chains + vectors + 1) / registers",
        lambda s: (s.chains + s.filled + 1) / s.t["registers"],
    ),
    Feature(
        "loads_per_fma", "ratio", "(highest + vectors) units / (2 chains)",
        lambda s: (s.highest + s.filled) * s.t["units"] / (2 * s.chains),
    ),
    Feature(
        "latency", "ratio", "4 units / chains: above 1 sums wait for each other",
        lambda s: 4 * s.t["units"] / s.chains,
    ),
    Feature("tiles", "log2", "log2 ceil(rows / tile_rows)", lambda s: _log(s.tiles)),
    Feature("panels", "log2", "log2 ceil(cols / width)", lambda s: _log(s.panels)),
    Feature(
        "row_fill", "share", "rows / (tiles tile_rows)", lambda s: s.rows / (s.tiles * s.height)
    ),
    Feature(
        "lowest", "count", "rows // tiles: of the lowest tile", lambda s: np.floor(s.rows / s.tiles)
    ),
    Feature(
        "col_fill", "share", "cols / (panels width)", lambda s: s.cols / (s.panels * s.width)
    ),
    Feature(
        "ragged", "count", "cols mod lanes",
        lambda s: np.mod(s.cols, np.maximum(s.t["lanes"], 1)),
    ),
    Feature(
        "last_vectors", "count", "ceil((cols - (panels - 1) width) / lanes)",
        lambda s: np.ceil(s.last / np.maximum(s.t["lanes"], 1)),
    ),
    Feature("panel_fill", "share", "cols / columns computed, a last panel narrowed", _panel_fill),
    Feature(
        "packed_turned", "log2", "log2(packed in squares / (rows cols depth / lanes))",
        _packing(_turned),
    ),
    Feature(
        "packed_singly", "log2", "log2(packed one by one / (rows cols depth / lanes))",
        _packing(lambda s: s.points - _turned(s)),
    ),
    Feature(
        "depth_over", "count", "depth mod lanes where columns lie apart: packed one by one",
        lambda s: np.where(s.t["rhs"] == ACROSS, np.mod(s.depth, np.maximum(s.t["lanes"], 1)), 0),
    ),
    Feature("conflicts", "ratio", "tile_rows / places of L1 for rows `pitch` apart", _conflicts),
    Feature("balance", "share", "tasks / (ceil(tasks / cores) cores)", _balance),
    Feature(
        "narrow", "share", "lanes bits / vector_bits",
        lambda s: s.t["lanes"] * 32 / s.t["vector_bits"],
    ),
    # light kernels
    Feature(
        "row_vectors", "log2", "log2 ceil(cols depth / lanes)",
        lambda s: _light(_log(s.row_vectors), s),
    ),
    Feature(
        "whole_vectors", "log2", "log2(block floor(cols depth / lanes) + 1): rows taken at a time",
        lambda s: _light(_log(s.whole_vectors + 1), s),
    ),
    Feature(
        "left_over", "vectors", "(cols depth mod lanes unroll) / lanes",
        lambda s: _light(_left_over(s), s),
    ),
    Feature("map_lanes", "count", "map_lanes", _term("map_lanes")),
    Feature(
        "map_left_over", "count", "cols depth mod map_lanes: computed one by one",
        lambda s: _light(np.mod(s.points, np.maximum(s.t["map_lanes"], 1)), s),
    ),
    Feature(
        "row_steps", "log2", "log2(cols depth / (lanes unroll))",
        lambda s: _light(
            _log(s.points / np.maximum(s.t["lanes"], 1) / np.maximum(s.t["unroll"], 1)), s
        ),
    ),
    # GPUs
    *(
        Feature(f"log_{name}", "log2", f"log2({name} + 1)", _log_term(name))
        for name in ("block_rows", "block_cols", "block_depth", "splits", "copy_bytes")
    ),
    Feature("in_flight", "count", "in_flight", _term("in_flight")),
    Feature("resident", "count", "resident", _term("resident")),
    Feature(
        "waves", "log2", "log2(blocks splits / (cores resident)), 0 on CPUs",
        lambda s: _log(np.where(s.t["block_rows"] > 0, _waves(s), 1)),
    ),
    Feature(
        "last_wave", "share", "waves / ceil(waves), 1 on CPUs",
        lambda s: np.where(s.t["block_rows"] > 0, _waves(s) / np.maximum(np.ceil(_waves(s)), 1), 1),
    ),
    # bytes per level
    *(
        Feature(f"{name}_in_{level}", "log2", f"log2({what} / {level})", of)
        for name, level, what, of in (
            ("tile", "l1", "item tile_rows depth", lambda s: _log(s.under_tile / s.t["l1"])),
            ("panel", "l1", "item width depth", lambda s: _log(s.panel / s.t["l1"])),
            ("panel", "l2", "item width depth", lambda s: _log(s.panel / s.t["l2"])),
            ("block", "l2", "block item tile_rows depth",
             lambda s: _log(s.block * s.under_tile / s.t["l2"])),
            ("rhs", "l2", "item batch cols depth", lambda s: _log(s.rhs / s.t["l2"])),
            ("rhs", "l3", "item batch cols depth", lambda s: _log(s.rhs / s.t["l3"])),
            ("lhs", "l2", "item batch lines rows depth / taps",
             lambda s: _log(s.lhs / s.t["l2"])),
            ("out_panel", "l1", "4 min(block tile_rows, rows) width",
             lambda s: _log(_out_panel(s) / s.t["l1"])),
            ("out_panel", "l2", "4 min(block tile_rows, rows) width",
             lambda s: _log(_out_panel(s) / s.t["l2"])),
            ("out", "l2", "4 batch lines rows cols", lambda s: _log(s.out / s.t["l2"])),
            ("all", "l3", "lhs + rhs + out", lambda s: _log(s.moved / s.t["l3"])),
        )
    ),
    Feature(
        "panel_reuse", "log2", "log2(tiles over a panel of a block)", lambda s: _log(s.block)
    ),
    Feature(
        "memory_share", "log2", "log2((lhs + rhs + out) / dram / (flops / peak))",
        lambda s: _log(
            s.moved / s.t["dram"] / s.flops * s.t["units"] * s.t["vector_bits"] / 16 * s.t["ghz"]
        ),
    ),
    # the machine and the analytic price
    *(
        Feature(name, unit, name, _term(name))
        for name, unit in (
            ("vector_bits", "bits"),
            ("registers", "count"),
            ("units", "per cycle"),
            ("cores", "count"),
        )
    ),
    *(
        Feature(f"log_{name}", "log2", f"log2({name} + 1)", _log_term(name))
        for name in ("l1", "l2", "l3")
    ),
    Feature(
        "bandwidth", "bytes / cycle", "dram / ghz", lambda s: s.t["dram"] / s.t["ghz"]
    ),
    Feature("log_cycles", "log2", "log2(cycles + 1)", _log_term("cycles")),
    Feature(
        "efficiency", "log2", "log2(flops / cycles)",
        lambda s: _log(s.flops / np.maximum(s.t["cycles"], 1)),
    ),
)  # fmt: skip

NAMES = tuple(feature.name for feature in FEATURES)


def features(terms: Terms) -> Array:
    """float32 [candidates, FEATURES]."""
    sizes = Sizes(terms)
    found = np.empty((len(FEATURES), terms.count), np.float32)
    for row, feature in zip(found, FEATURES):
        row[:] = feature.of(sizes)
    return found.T


def table() -> str:
    """The table, in Markdown."""
    lines = ["| feature | unit | formula |", "|---|---|---|"]
    lines += [f"| `{f.name}` | {f.unit} | {f.formula} |" for f in FEATURES]
    return "\n".join(lines)
