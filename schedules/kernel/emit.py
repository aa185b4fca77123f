"""Building TIR: loops, bindings and vectors, with sizes that are Python ints where known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import dtype_bits

from .analysis import Axis, collect, constant

Size: TypeAlias = int | Expr
Body: TypeAlias = Callable[[Expr], tirx.Stmt]

Values: TypeAlias = Mapping[Var, Expr]
"""What the axes of a contraction are at some point of the code."""

SERIAL, PARALLEL = tirx.ForKind.SERIAL, tirx.ForKind.PARALLEL
VECTORIZED, UNROLLED = tirx.ForKind.VECTORIZED, tirx.ForKind.UNROLLED


def index(value: Size) -> Expr:
    """`value` as an int64 expression."""
    return tirx.const(value, "int64") if isinstance(value, int) else value


def known(value: Size) -> Size:
    """A constant expression as an int."""
    number = constant(value)
    return value if number is None else number


def ceildiv(a: Size, b: int) -> Size:
    return -(-a // b) if isinstance(a, int) else known((a + (b - 1)) // b)


def least(a: Size, b: Size) -> Size:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.min(index(a), index(b))


def most(a: Size, b: Size) -> Size:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.max(index(a), index(b))


def loop(
    extent: Size, body: Body, kind: tirx.ForKind = SERIAL, name: str = "i", start: Size = 0
) -> tirx.Stmt:
    """``for name in range(start, start + extent): body(name)``; one iteration needs no loop."""
    extent = known(extent)
    if isinstance(extent, int) and extent == 0:
        return tirx.Evaluate(index(0))
    if isinstance(extent, int) and extent == 1:
        return body(index(start))
    var = Var(name, "int64")
    return tirx.For(var, index(start), index(extent), kind, body(var))


def turned(extent: Size, count: int, body: Body, name: str = "k") -> tirx.Stmt:
    """``body(name)`` for every index below `extent`, `count` of them in a turn of the loop."""
    whole, rest = known(extent // count), known(extent % count)

    def turn(at: Expr) -> tirx.Stmt:
        return block(*(body(at * count + n) for n in range(count)))

    if rest == 0:
        return loop(whole, turn, name=name)
    left = loop(rest, lambda n: body(whole * count + n), name="rest")
    return left if whole == 0 else block(loop(whole, turn, name=name), left)


def nest(extents: Iterable[Size], body: Callable[[list[Expr]], tirx.Stmt]) -> tirx.Stmt:
    """Serial loops, outermost first."""

    def level(rest: list[Size], done: list[Expr]) -> tirx.Stmt:
        if not rest:
            return body(done)
        return loop(rest[0], lambda i: level(rest[1:], [*done, i]))

    return level(list(extents), [])


def block(*parts: tirx.Stmt | None) -> tirx.Stmt:
    """Statements one after another; None stands for nothing."""
    present = [part for part in parts if part is not None]
    return present[0] if len(present) == 1 else tirx.SeqStmt(present)


def bind(value: Size, body: Body, name: str, scope: str = "global") -> tirx.Stmt:
    """``name = value`` and what follows; constants and variables need no name of their own.

    A product or quotient of two unknowns takes a detour through memory, so that no pass looks into
    it: in every index it makes TVM's passes ten times slower. LLVM removes the detour.
    """
    value = index(known(value))
    if isinstance(value, Var | tirx.IntImm):
        return body(value)
    var = Var(name, "int64")
    if not _nonlinear(value):
        return block(tirx.Bind(var, value), body(var))
    return hidden(value, var, body(var), scope)


def hidden(value: Expr, var: Var, body: tirx.Stmt, scope: str = "global") -> tirx.Stmt:
    """``var = value`` by way of memory, and what follows."""
    cell = allocate([1], "int64", f"{var.name}_cell", scope)
    store = tirx.BufferStore(cell, value, [index(0)])
    return block(tirx.AllocBuffer(cell), store, tirx.Bind(var, cell[index(0)]), body)


class Names:
    """Names for values, one after another, and what follows; as `bind` by way of memory."""

    def __init__(self, scope: str = "local") -> None:
        self.scope = scope
        self.parts: list[tirx.Stmt] = []

    def __call__(self, value: Size, name: str) -> Expr:
        """`value` by that name from here on; constants and variables need none of their own."""
        value = index(known(value))
        if isinstance(value, Var | tirx.IntImm):
            return value
        cell, var = allocate([1], "int64", f"{name}_cell", self.scope), Var(name, "int64")
        self.parts += [
            tirx.AllocBuffer(cell),
            tirx.BufferStore(cell, value, [index(0)]),
            tirx.Bind(var, cell[index(0)]),
        ]
        return var

    def then(self, body: tirx.Stmt) -> tirx.Stmt:
        """The names, and `body`."""
        return block(*self.parts, body)


def _nonlinear(value: Expr) -> bool:
    found: list[Expr] = []
    for kind in (tirx.Mul, tirx.FloorDiv, tirx.FloorMod, tirx.Div, tirx.Mod):
        found += collect(value, kind)
    return any(constant(node.a) is None and constant(node.b) is None for node in found)


def bind_each(
    values: Values, body: Callable[[Values], tirx.Stmt], scope: str = "global"
) -> tirx.Stmt:
    """`bind` for several: the names of the variables stay, their values become names."""

    def level(rest: list[tuple[Var, Expr]], done: dict[Var, Expr]) -> tirx.Stmt:
        if not rest:
            return body(done)
        (var, value), *others = rest
        return bind(value, lambda name: level(others, {**done, var: name}), var.name, scope)

    return level(list(values.items()), {})


def vectors(count: Size, lanes: int, body: Body, unroll: bool = True) -> tirx.Stmt:
    """``body(j)`` for j in 0 .. count*lanes, `lanes` at a time."""
    return loop(
        count,
        lambda v: loop(lanes, lambda lane: body(v * lanes + lane), VECTORIZED, "lane"),
        UNROLLED if unroll else SERIAL,
        "v",
    )


def allocate(shape: Iterable[Size], dtype: str, name: str, scope: str = "global") -> Var:
    """A buffer of a kernel's own; place ``tirx.AllocBuffer(buffer)`` before its first use."""
    return tirx.decl_buffer([index(n) for n in shape], dtype, name, scope=scope)


def unravel(flat: Expr, axes: Iterable[Axis]) -> dict[Var, Expr]:
    """Each of `axes` at a position of their row-major product."""
    axes = list(axes)
    values: dict[Var, Expr] = {}
    for axis in reversed(axes):
        if axis is axes[0]:
            values[axis.var] = flat
        else:
            values[axis.var] = flat % axis.extent
            flat = flat // axis.extent
    return values


def ravel(at: Iterable[Expr], extents: Iterable[Size]) -> Expr:
    """The row-major position of a point."""
    flat = index(0)
    for i, extent in zip(at, extents):
        flat = flat * extent + i
    return flat


def held(buffer: Var, body: tirx.Stmt) -> tirx.Stmt:
    """`body` with memory for `buffer`, taken where `body` begins and given back where it ends.

    Of a size that is known at run time only, TVM would take what ``tirx.AllocBuffer`` asks for
    where the kernel begins, needed or not.
    """
    if all(constant(n) is not None for n in buffer.shape):
        return block(tirx.AllocBuffer(buffer), body)
    cpu, device = (tirx.const(n, "int32") for n in (1, 0))
    dtype = str(buffer.dtype)
    bits = dtype_bits(dtype)
    count = ravel([n - 1 for n in buffer.shape], buffer.shape) + 1
    size = tirx.Cast("uint64", count * (bits // 8))
    pointer = tirx.TVMBackendAllocWorkspace(
        cpu, device, size, tirx.const(2, "int32"), tirx.const(bits, "int32")
    )
    data = tirx.buffer.buffer_data(buffer)
    failed = tirx.IfThenElse(tirx.isnullptr(data), tirx.Evaluate(tirx.tvm_throw_last_error()), None)
    free = tirx.Evaluate(tirx.TVMBackendFreeWorkspace(cpu, device, data))
    kind = tirx.buffer.buffer_data_pointer_type(buffer)
    return block(tirx.DeclBuffer(buffer, data=tirx.reinterpret(kind, pointer)), failed, body, free)


def zeros(buffer: Var, indices: list[Expr]) -> tirx.Stmt:
    return tirx.BufferStore(buffer, tirx.const(0, str(buffer.dtype)), indices)
