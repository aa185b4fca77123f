"""Random chains of movement operators, each as a virtual tensor and as NumPy would compute it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from tvmext.frontends.dims import Expr, evaluate, floordiv, product
from tvmext.passes.virtual import operations as ops
from tvmext.passes.virtual.piece import Home, Lookup, local
from tvmext.passes.virtual.scope import Size
from tvmext.passes.virtual.tensor import VirtualTensor, physical

MAX_ELEMENTS = 4000


@dataclass
class Program:
    """A virtual tensor, and its value for each binding of the dims."""

    bindings: list[dict[str, int]]
    tensor: VirtualTensor
    values: list[np.ndarray]
    arrays: list[dict[str, np.ndarray]]
    log: list[str] = field(default_factory=list)

    def step(
        self,
        text: str,
        virtual: Callable[[VirtualTensor], VirtualTensor],
        concrete: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.log.append(text)
        self.tensor = virtual(self.tensor)
        self.values = [concrete(value) for value in self.values]

    def sizes(self, axis: int) -> list[int]:
        return [value.shape[axis] for value in self.values]

    def source(self, shape: tuple[Size, ...]) -> tuple[VirtualTensor, list[np.ndarray]]:
        """A fresh input of the shape, all elements distinct."""
        name = f"in{len(self.arrays[0])}"
        made = []
        for binding, arrays in zip(self.bindings, self.arrays):
            concrete = tuple(evaluate(size, binding) for size in shape)
            start = 10_000 * (len(arrays) + 1)
            arrays[name] = np.arange(start, start + np.prod(concrete, dtype=int)).reshape(concrete)
            made.append(arrays[name])
        return physical(name, shape), made


def start(shape: tuple[Size, ...], bindings: list[dict[str, int]]) -> Program:
    program = Program(bindings, None, [], [{} for _ in bindings])  # type: ignore[arg-type]
    program.tensor, program.values = program.source(shape)
    return program


@st.composite
def programs(
    draw: st.DrawFn, shapes: st.SearchStrategy, bindings: list[dict[str, int]], steps: int
) -> Program:
    """A chain of at most `steps` operators from an input of one of the shapes."""
    program = start(draw(shapes), bindings)
    for _ in range(draw(st.integers(1, steps))):
        draw(st.sampled_from(STEPS))(draw, program)
        if max(value.size for value in program.values) > MAX_ELEMENTS:
            break
    return program


def _axis(draw: st.DrawFn, program: Program) -> int:
    return draw(st.integers(0, program.tensor.rank - 1))


def permute(draw: st.DrawFn, program: Program) -> None:
    axes = draw(st.permutations(range(program.tensor.rank)))
    program.step(f"permute {axes}", lambda t: ops.permute(t, axes), lambda a: np.transpose(a, axes))


def merge(draw: st.DrawFn, program: Program) -> None:
    """Reshape: two or more neighbouring axes become one."""
    first = _axis(draw, program)
    last = draw(st.integers(first, program.tensor.rank - 1))
    shape = program.tensor.shape
    new = (*shape[:first], product(shape[first : last + 1]), *shape[last + 1 :])
    _reshape(program, new)


def unmerge(draw: st.DrawFn, program: Program) -> None:
    """Reshape: one axis becomes two, where a small factor divides it."""
    axis, factor = _axis(draw, program), draw(st.sampled_from([2, 3, 4]))
    shape = program.tensor.shape
    rest = floordiv(shape[axis], factor)
    if program.tensor.rank < 5 and rest * factor == shape[axis]:
        pair = (rest, factor) if draw(st.booleans()) else (factor, rest)
        _reshape(program, (*shape[:axis], *pair, *shape[axis + 1 :]))


def rearrange(draw: st.DrawFn, program: Program) -> None:
    """Reshape to the sizes in another order: groups of coprime sizes meet."""
    _reshape(program, tuple(draw(st.permutations(program.tensor.shape))))


def _reshape(program: Program, shape: tuple[Size, ...]) -> None:
    program.log.append(f"reshape {shape}")
    program.tensor = ops.reshape(program.tensor, shape)
    program.values = [
        value.reshape(tuple(evaluate(size, binding) for size in shape))
        for value, binding in zip(program.values, program.bindings)
    ]


def slices(draw: st.DrawFn, program: Program) -> None:
    """A slice that leaves out a few elements at each end, with a step of either sign."""
    axis, step = _axis(draw, program), draw(st.sampled_from([1, 1, 2, 3]))
    smallest = min(program.sizes(axis))
    begin = draw(st.integers(0, min(smallest, 3)))
    end = draw(st.integers(0, min(smallest - begin, 3)))
    size = floordiv(program.tensor.shape[axis] - begin - end + step - 1, step)
    if draw(st.booleans()):
        program.step(
            f"slice {axis} {begin}:-{end}:{step}",
            lambda t: ops.slices(t, axis, begin, size, step),
            lambda a: _along(a, axis, slice(begin, a.shape[axis] - end, step)),
        )
    else:
        program.step(
            f"slice {axis} {begin}:-{end}:{step} backwards",
            lambda t: ops.slices(t, axis, begin + step * (size - 1), size, -step),
            lambda a: np.flip(_along(a, axis, slice(begin, a.shape[axis] - end, step)), axis),
        )


def _along(array: np.ndarray, axis: int, part: slice) -> np.ndarray:
    return array[(slice(None),) * axis + (part,)]


def flip(draw: st.DrawFn, program: Program) -> None:
    axis = _axis(draw, program)
    program.step(f"flip {axis}", lambda t: ops.flip(t, axis), lambda a: np.flip(a, axis))


def new_axis(draw: st.DrawFn, program: Program) -> None:
    """expand_dims, then broadcast_to."""
    axis, size = draw(st.integers(0, program.tensor.rank)), draw(st.integers(1, 3))
    if program.tensor.rank < 5:
        program.step(
            f"new axis {axis} of {size}",
            lambda t: ops.broadcast(ops.expand(t, axis), (*t.shape[:axis], size, *t.shape[axis:])),
            lambda a: np.repeat(np.expand_dims(a, axis), size, axis),
        )


def drop_axis(draw: st.DrawFn, program: Program) -> None:
    """One index of an axis, then squeeze."""
    axis = _axis(draw, program)
    if program.tensor.rank > 1 and min(program.sizes(axis)):
        at = draw(st.integers(0, min(program.sizes(axis)) - 1))
        program.step(
            f"pick {at} of {axis}",
            lambda t: ops.squeeze(ops.slices(t, axis, at, 1), axis),
            lambda a: a.take(at, axis),
        )


def concat(draw: st.DrawFn, program: Program) -> None:
    """With a new input before it, and itself reversed after it."""
    axis, both = _axis(draw, program), draw(st.booleans())
    shape = program.tensor.shape
    extra, made = program.source((*shape[:axis], draw(st.integers(1, 3)), *shape[axis + 1 :]))
    program.log.append(f"concat {axis} {both}")
    mine = program.tensor
    rest = [mine, ops.flip(mine, axis)] if both else [mine]
    program.tensor = ops.concat([extra, *rest], axis)
    program.values = [
        np.concatenate([e, v, np.flip(v, axis)] if both else [e, v], axis)
        for e, v in zip(made, program.values)
    ]


def stack(draw: st.DrawFn, program: Program) -> None:
    axis = draw(st.integers(0, program.tensor.rank))
    if program.tensor.rank < 5:
        extra, made = program.source(program.tensor.shape)
        program.log.append(f"stack {axis}")
        program.tensor = ops.stack([program.tensor, extra], axis)
        program.values = [np.stack(pair, axis) for pair in zip(program.values, made)]


def split_and_swap(draw: st.DrawFn, program: Program) -> None:
    """Two parts, joined in the other order."""
    axis = _axis(draw, program)
    at = draw(st.integers(0, min(program.sizes(axis))))
    program.step(
        f"swap {axis} at {at}",
        lambda t: ops.concat(ops.split(t, [at, t.shape[axis] - at], axis)[::-1], axis),
        lambda a: np.concatenate(np.split(a, [at], axis)[::-1], axis),
    )


def tile(draw: st.DrawFn, program: Program) -> None:
    axis, times = _axis(draw, program), draw(st.integers(1, 3))
    repeats = [times if k == axis else 1 for k in range(program.tensor.rank)]
    program.step(f"tile {repeats}", lambda t: ops.tile(t, repeats), lambda a: np.tile(a, repeats))


def repeat(draw: st.DrawFn, program: Program) -> None:
    axis, times = _axis(draw, program), draw(st.integers(1, 3))
    program.step(
        f"repeat {axis} {times}",
        lambda t: ops.repeat(t, times, axis),
        lambda a: np.repeat(a, times, axis),
    )


def roll(draw: st.DrawFn, program: Program) -> None:
    axis = _axis(draw, program)
    shift = draw(st.integers(0, min(program.sizes(axis))))
    program.step(
        f"roll {axis} {shift}",
        lambda t: ops.roll(t, shift, axis),
        lambda a: np.roll(a, shift, axis),
    )


def pad(draw: st.DrawFn, program: Program) -> None:
    """Zeros around, or elements cut off."""
    axis = _axis(draw, program)
    smallest = min(program.sizes(axis))
    left, right = draw(st.integers(-min(smallest, 2), 2)), draw(st.integers(0, 2))
    value = draw(st.integers(0, 9))
    rank = program.tensor.rank
    before, after = ([n if k == axis else 0 for k in range(rank)] for n in (left, right))
    program.step(
        f"pad {axis} {left} {right} {value}",
        lambda t: ops.pad(t, before, after, value),
        lambda a: np.pad(
            _along(a, axis, slice(max(-left, 0), None)),
            [(max(b, 0), a) for b, a in zip(before, after)],
            constant_values=value,
        ),
    )


def pad_edges(draw: st.DrawFn, program: Program) -> None:
    axis, mode = _axis(draw, program), draw(st.sampled_from(["edge", "reflect", "wrap"]))
    smallest = min(program.sizes(axis)) - (mode == "reflect")
    if smallest > 0:
        left, right = (draw(st.integers(0, min(smallest, 2))) for _ in range(2))
        rank = program.tensor.rank
        before, after = ([n if k == axis else 0 for k in range(rank)] for n in (left, right))
        program.step(
            f"pad {mode} {axis} {left} {right}",
            lambda t: ops.pad_edges(t, before, after, mode),
            lambda a: np.pad(a, list(zip(before, after)), mode=mode),
        )


def take(draw: st.DrawFn, program: Program) -> None:
    """By indices that are read when it runs."""
    axis = _axis(draw, program)
    if smallest := min(program.sizes(axis)):
        chosen = np.array(draw(st.lists(st.integers(0, smallest - 1), min_size=1, max_size=4)))
        name = f"indices{len(program.arrays[0])}"
        for arrays in program.arrays:
            arrays[name] = chosen
        shape = program.tensor.shape
        lookup = Lookup(Home(name, chosen.shape), (local(axis),), shape[axis])
        result = (*shape[:axis], len(chosen), *shape[axis + 1 :])
        program.step(
            f"take {axis} {chosen}",
            lambda t: ops.take(t, lookup, axis, 1, result),
            lambda a: np.take(a, chosen, axis),
        )


def unfold(draw: st.DrawFn, program: Program) -> None:
    axis, size = _axis(draw, program), draw(st.integers(1, 3))
    step, dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    reach = dilation * (size - 1) + 1
    if program.tensor.rank < 5 and min(program.sizes(axis)) >= reach:
        program.step(
            f"unfold {axis} {size} {step} {dilation}",
            lambda t: ops.unfold(t, axis, size, step, dilation),
            lambda a: np.lib.stride_tricks.sliding_window_view(a, reach, axis)[
                (slice(None),) * axis + (slice(None, None, step), ..., slice(None, None, dilation))
            ],
        )


def update(draw: st.DrawFn, program: Program) -> None:
    """A box in the middle written over."""
    axis = _axis(draw, program)
    smallest = min(program.sizes(axis))
    size = draw(st.integers(0, smallest))
    at = draw(st.integers(0, smallest - size))
    shape, rank = program.tensor.shape, program.tensor.rank
    part, made = program.source((*shape[:axis], size, *shape[axis + 1 :]))
    offset = [at if k == axis else 0 for k in range(rank)]
    program.log.append(f"update {axis} {at} {size}")
    program.tensor = ops.update(program.tensor, part, offset)
    written = []
    for value, new in zip(program.values, made):
        copy = value.copy()
        copy[(slice(None),) * axis + (slice(at, at + size),)] = new
        written.append(copy)
    program.values = written


STEPS = (
    permute, merge, unmerge, rearrange, slices, flip, new_axis, drop_axis, concat, stack,
    split_and_swap, tile, repeat, roll, pad, pad_edges, take, unfold, update,
)  # fmt: skip

__all__ = ["STEPS", "Expr", "Program", "programs", "start"]
