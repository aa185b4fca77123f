"""What a convolution as sums over a window (conv_direct.py) costs, and its decision."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tvmext.arch import CpuArch, dtype_bits

from ..dispatch import Heights
from ..kernel.contraction import Contraction
from ..levels import (
    UNKNOWN_COLS,
    UNKNOWN_DEPTH,
    UNKNOWN_SIDE,
    Product,
    best_tile,
    product_cycles,
    rows_in_l1,
    widest,
)
from .decision import StagePlan
from .dots import Dot, find_dot
from .gemm import PARALLEL_FLOPS, register_units
from .gemm_blocks import fetches_ahead
from .heights import tile_heights
from .tile import Shape
from .turned import Turned

FLAT_PIXELS = 128
"""Images up to this many output pixels may be taken as one row of pixels; the code is unrolled."""


@dataclass(frozen=True)
class Workload:
    """A convolution. Sizes are None when they are known at run time only."""

    groups: int | None
    images: int | None
    height: int | None
    width: int | None
    channels: int | None
    reduce: int | None
    staged: bool
    row_bytes: int | None
    """Bytes of input that one more output row reads."""
    pitch: int
    """Bytes between the inputs of neighbouring pixels, 0 if that is known at run time only."""
    weight_arg: int | None
    dtype: str
    contraction: Contraction = field(repr=False, compare=False)
    types: tuple[str, str] | None = None
    """What is multiplied, if neighbours along the sum may be taken together: bytes, perhaps."""
    turned: bool = False
    """Whether the results lie across the order of the vectors (turned.py)."""

    @property
    def apart(self) -> int:
        """Pictures whose blocks are computed apart: the groups of one are turned together."""
        return (self.images or 1) * (1 if self.turned else self.groups or 1)


@dataclass(frozen=True)
class Decision:
    """A register tile, how many output rows make a block, and what runs in parallel."""

    tile: Shape
    flat: bool
    """Whether pixels are taken row after row as one long row."""
    block_rows: int
    """Output rows of a block; 0 takes the whole image."""
    parallel: str
    """"none", "blocks" or "panels"."""
    ahead: int = 0
    """Tiles that pass over a panel, if they fetch the next one into L2 meanwhile; else 0."""
    dot: Dot | None = None
    """The instruction for products of bytes."""
    merged: int = 1
    """Groups that are taken together as one (conv_groups.py)."""
    turned: tuple[StagePlan, ...] = ()
    """How the results of a block are stored once it is complete, if not tile by tile."""
    heights: Heights = ()
    """Pixels of tiles, with their prices, where a row's length is not known (rows.py)."""
    block_bytes: int = 0
    """Bytes of input that a block reads, if its rows are counted by them when the kernel runs."""
    least_blocks: int = 1
    """Into how many blocks an image is cut at the least, then."""

    @property
    def manner(self) -> str:
        return "words" if self.dot else ""


def decide(work: Workload, arch: CpuArch) -> Decision:
    """The tile of the least price, then blocks that fit the caches and feed the cores."""
    dot = find_dot(work.types, arch)
    return blocked(work, *_tile(work, dot, arch), dot, arch)


def blocked(work: Workload, shape: Shape, flat: bool, dot: Dot | None, arch: CpuArch) -> Decision:
    """Blocks of tiles of `shape`, and what runs in parallel."""
    width_of = 1 if dot else 4
    height, width = work.height or UNKNOWN_SIDE, work.width or UNKNOWN_SIDE
    images = work.apart
    depth, channels = work.reduce or UNKNOWN_DEPTH, work.channels or UNKNOWN_COLS
    fits = max(1, arch.l2_bytes // 3 // max(work.row_bytes or 1, 1))
    block_rows = min(height, fits)
    parallel = "none"
    pixels = height * width * (work.images or 1) * (work.groups or 1)
    if arch.cores > 1 and 2 * depth * channels * pixels >= PARALLEL_FLOPS:
        light = depth * channels * width_of <= arch.l2_bytes
        enough = images >= arch.cores or not flat
        spread = light and enough and height * images >= 4 * arch.cores
        parallel = "blocks" if spread else "panels"
        if spread:
            block_rows = max(1, min(block_rows, -(-height // _shares(images, arch.cores))))
    if work.turned:
        cores = arch.cores if parallel == "blocks" else 1
        block_rows = lines_to_turn(work, block_rows, cores, arch)
    blocks = -(-height // block_rows)
    if parallel == "blocks" and not work.turned:
        blocks = _evened(height, blocks, images, arch.cores)
    whole = flat or (blocks == 1 and work.height is not None)
    block_rows = 0 if whole else -(-height // blocks)
    tiles = 0
    if work.weight_arg is not None and fetches_ahead(
        width_of * depth, work.channels, shape.cols, arch
    ):
        lines = 1 if flat else block_rows or height
        tiles = lines * -(-(height * width if flat else width) // shape.rows)
    turned: tuple[StagePlan, ...] = ()
    if work.turned:
        turned = Turned.of(work.contraction, block_rows).plans(block_rows or height, arch)
    decision = Decision(shape, flat, block_rows, parallel, tiles, dot, turned=turned)
    if work.width is None:
        decision = replace(decision, heights=tile_heights(shape, work.contraction, dot, arch))
    if whole or turned or (work.width is not None and work.height is not None):
        return decision
    shares = _shares(images, arch.cores) if parallel == "blocks" else 1
    return replace(decision, block_bytes=arch.l2_bytes // 3, least_blocks=shares)


def _shares(images: int, cores: int) -> int:
    """Blocks to cut every image into, so that all cores get as much; more if images are few."""
    if images < cores:
        return 2 * cores
    return next(n for n in range(1, cores + 1) if images * n % cores == 0 or images * n > 8 * cores)


def _evened(height: int, blocks: int, images: int, cores: int) -> int:
    """At least so many equal blocks of an image, at most twice, that all cores get as many."""
    counts = (-(-height // -(-height // n)) for n in range(blocks, min(height, 2 * blocks) + 1))
    return next((count for count in counts if images * count % cores == 0), blocks)


def lines_to_turn(work: Workload, most: int, cores: int, arch: CpuArch) -> int:
    """Output rows of a block that is turned: whole squares, and as many blocks for every core.

    Per element a product takes a FMA for each step of the sum, a square two operations of a vector,
    and what no square covers is loaded alone.
    """
    height, width = work.height or UNKNOWN_SIDE, work.width or UNKNOWN_SIDE
    channels = (work.groups or 1) * (work.channels or UNKNOWN_COLS)
    most = min(most, max(1, arch.l2_bytes // 4 // (4 * width * channels)))
    lanes = arch.vector_lanes("float32")
    depth = (work.reduce or UNKNOWN_DEPTH) / lanes

    def price(lines: int) -> float:
        rest = lines * width % lanes / (lines * width)
        rounds = -(-work.apart * -(-height // lines) // cores)
        return rounds * lines * (depth + 4 / lanes + 2 * rest)

    return min(range(1, most + 1), key=price)


def cycles(work: Workload, decision: Decision, arch: CpuArch) -> float:
    """The price of a decision."""
    tile = decision.tile
    units = arch.fmas_per_cycle(tile.lanes * dtype_bits(work.dtype))
    lines, pixels = work.height or UNKNOWN_SIDE, work.width or UNKNOWN_SIDE
    if decision.flat:
        lines, pixels = 1, lines * pixels
    line = Product(pixels, work.channels, work.reduce)
    images = (work.images or 1) * (work.groups or 1)
    return images * lines * product_cycles(line, tile.rows, tile.vectors, tile.lanes, units)


def _tile(work: Workload, dot: Dot | None, arch: CpuArch) -> tuple[Shape, bool]:
    """The register tile, and whether pixels are better taken row after row."""
    widths, steps, registers = register_units(work.dtype, work.reduce, dot, arch)
    limit = min(14 if work.width is not None else 8, rows_in_l1(work.pitch, arch.l1_bytes))
    row = Product(work.width, work.channels, steps)

    def tile(lanes: int, units: int) -> tuple[tuple[Shape, bool], float]:
        apart = best_tile(row, lanes, registers, units, limit)
        price = product_cycles(row, *apart, lanes, units)
        if work.width is None or work.height is None or work.height == 1:
            return (Shape(*apart, lanes), False), price
        price *= work.height
        image = Product(work.width * work.height, work.channels, steps)
        joined = best_tile(image, lanes, registers, units)
        flat = product_cycles(image, *joined, lanes, units)
        if work.width * work.height <= FLAT_PIXELS and flat < price:
            return (Shape(*joined, lanes), True), flat
        return (Shape(*apart, lanes), False), price

    return widest([tile(*width) for width in widths])
