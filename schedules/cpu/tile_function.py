"""The register tiles that products share: a function of a library, with tiles of every height.

    tile(x, places, w, sums, ahead, runs, jump, steps, pitch, height, heights):
        sums[i, j] = sum_rk x[places[i] + r * jump + k] * w[r * steps + k, j]
                                                           i < height, r < runs, k < steps

Rows of `sums` and `w` are `pitch` apart; what `ahead` points to is fetched into L2 meanwhile, but
not by tiles of one vector. The bits of `heights` are the heights that a caller has: the function
has those of its callers.

LLVM must not put the function into a kernel: TVM tells it that buffers of other names are other
memory, and the function has names of its own for what is also the kernel's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from tvm import tirx
from tvm.ir import Expr, GlobalVar, PointerType, PrimType, TensorLoad, Var

from tvmext.arch import dtype_bits

from ..kernel.analysis import REDUCE, SPATIAL, Axis, constant, substitute
from ..kernel.choice import of_height
from ..kernel.contraction import Contraction, Operand
from ..kernel.emit import Size, Values, allocate, block, index
from ..levels import LINE_BYTES
from .panel import Panel
from .panels import fetch
from .tile import Kernel, Shape

TILES = 4
"""Tiles that fetch the next panel, a part each, when their number is known at run time only."""

ON_STACK = "disable_lower_builtin"
"""Annotation of a buffer that stays on the stack whatever its size (kDisableLowerTVMBuiltin)."""

APART = "tvmext.apart"
"""Attribute of a function that LLVM must not put into others: the name of what computes it."""

_PREFIX = "tvmext_tile_"
_NAME = re.compile(_PREFIX + r"(\d+)x(\d+)x(\d+)_(\d+)_(float\d+)")


def fetched_elements(shape: Shape) -> int:
    """Elements of the next panel that a step of a tile fetches: at most a cache line."""
    return -(-shape.cols // TILES)


@cache
def tile_function(shape: Shape, chains: int, dtype: str) -> GlobalVar:
    """The function of tiles of `shape`, whose sums are so many `chains` at the least."""
    return GlobalVar(f"{_PREFIX}{shape.rows}x{shape.vectors}x{shape.lanes}_{chains}_{dtype}")


def definition(name: str, bits: int) -> tirx.PrimFunc | None:
    """The function of that name with the heights that `bits` has; None if it is none of these."""
    parsed = _NAME.fullmatch(name)
    if parsed is None:
        return None
    rows, count, lanes, chains = map(int, parsed.groups()[:4])
    heights = [n for n in range(rows, 0, -1) if bits >> n & 1]
    return _defined(name, Shape(rows, count, lanes), heights, chains, parsed[5])


def _defined(name: str, shape: Shape, heights: list[int], chains: int, dtype: str) -> tirx.PrimFunc:
    """The function: one body for every height."""
    x, w, ahead = (Pointer.of(name, dtype, [1 << 40]) for name in ("x", "w", "ahead"))
    places = Var("places", PointerType(PrimType("int64")))
    names = ("runs", "jump", "steps", "pitch", "height", "heights")
    count, jump, steps, pitch, height, _ = sizes = [Var(name, "int64") for name in names]
    sums = Pointer.of("sums", dtype, [index(shape.rows), pitch])
    row, column, run, depth = (
        Axis(Var(name, "int64"), extent, kind)
        for name, extent, kind in (
            ("row", height, SPATIAL),
            ("column", index(shape.cols), SPATIAL),
            ("run", count, REDUCE),
            ("k", steps, REDUCE),
        )
    )

    def operand(load: TensorLoad) -> Operand:
        return Operand(load, load, load)

    step = run.var * steps + depth.var
    left = tirx.BufferLoad(x.buffer, [row.var + depth.var])
    right = tirx.BufferLoad(w.buffer, [step * pitch + column.var])
    operands = (operand(left), operand(right))
    total = Contraction((), (row,), (column,), (run, depth), *operands, Var("sum", dtype), ())

    def term(at: Values, k: Values, _panel: Panel, j: Expr) -> Expr:
        return substitute(left * right, {**at, **k, column.var: j})

    def fetched(step: Expr, count: int) -> tirx.Stmt:
        each, line = fetched_elements(shape), LINE_BYTES * 8 // dtype_bits(dtype)
        places = (step * each + more for more in range(0, each * count, line))
        return block(*(fetch(tirx.BufferLoad(ahead.buffer, [place])) for place in places))

    beside = fetched if shape.vectors > 1 else None  # loads are the limit of one vector
    panel = Panel(total, {}, index(0), index(0), shape.cols, shape.cols, partial=True)

    def of(rows: int) -> tirx.Stmt:
        own = allocate([rows], "int64", "place")
        copied = (tirx.BufferStore(own, _element(places, i), [index(i)]) for i in range(rows))
        tile = _Tile(total, shape, term, own, jump, chains=chains, turned_from=1)
        at = lambda i: {row.var: tile.here[i]}  # noqa: E731
        work = tile.tile(at, rows, panel, sums.buffer, ahead=beside)
        return block(tirx.AllocBuffer(own), *copied, work)

    pointers = (x, w, sums, ahead)
    body = block(
        *(tirx.DeclBuffer(one.buffer, data=one.pointer) for one in pointers),
        of_height(heights, height, of),
    )
    params = [x.pointer, places, w.pointer, sums.pointer, ahead.pointer, *sizes]
    return private(name, params, body)


@dataclass(frozen=True, eq=False)
class _Tile(Kernel):
    """Rows begin at `own`, and `jump` elements on for every run: at `here`, so that an address is
    one of x for all rows, and one of these."""

    own: Var
    jump: Expr
    here: Var = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "here", allocate(self.own.shape, "int64", "here"))

    def _outer(self, extents: list[Size], body: Callable[[list[Expr]], tirx.Stmt]) -> tirx.Stmt:
        rows = constant(self.own.shape[0]) or 0

        def along(at: list[Expr]) -> tirx.Stmt:
            gone = at[0] * self.jump
            places = (tirx.BufferStore(self.here, self.own[i] + gone, [i]) for i in range(rows))
            return block(tirx.AllocBuffer(self.here), *places, body(at))

        return super()._outer(extents, along)


def private(name: str, params: list[Var], body: tirx.Stmt) -> tirx.PrimFunc:
    """A function that kernels call and that LLVM does not put into them."""
    func = tirx.PrimFunc(params, body, PrimType("int32"))
    return func.with_attrs({"tirx.noalias": True, APART: f"{name}_compute_"})


def _element(array: Var, place: int) -> Expr:
    """An element of an array of int64, read as what may be anything's memory.

    LLVM may have the caller read it.
    """
    kind = tirx.const(17, "int32")  # kInt64ArrayElem
    return tirx.call_intrin("int64", "tirx.tvm_struct_get", array, tirx.const(place, "int32"), kind)


@dataclass(frozen=True)
class Pointer:
    """A parameter that is a pointer, and what lies there."""

    pointer: Var
    buffer: Var

    @staticmethod
    def of(name: str, dtype: str, shape: list[Size]) -> Pointer:
        return Pointer(
            Var(f"{name}_at", PointerType(PrimType(dtype))), allocate(shape, dtype, name)
        )
