"""Transposed convolutions as ordinary ones, one for each position of an output within a stride.

Along one spatial axis, with stride s, dilation d and padding p at the beginning,

    out[Y] = sum over k of x[i] w[k]   where   i s + k d - p = Y

The outputs Y = s y + phase use the taps k = k0 + j t only, with k0 d = phase + p modulo s and
t = s / gcd(s, d), so that they are a convolution of their own over those taps:

    out[s y + phase] = sum over j of x[y + c - j t d / s] w[k0 + j t],   c = (phase + p - k0 d) / s

No multiplication by the zeros of a dilated input is left, and any stride, padding, output padding,
dilation and grouping is covered in any layout. One function holds all phases and interleaves them.

Where each phase has one tap, and all read the input at the same places, as with kernels as wide as
their stride, they are one product over the whole weight:

    out[s y + phase] = x[y] w[phase]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd

from tvm import relax, te, tirx, topi
from tvm.ir import Expr
from tvm.relax import op

from .constants import as_constant, constant
from .patterns import OUT_FUSABLE


@dataclass(frozen=True)
class Phase:
    """The taps of one phase along one axis, and where in the input they are.

    `first` is the input position of the last tap for y = 0, `step` what the position gains from
    each tap to the one before it; `count` is how many outputs more than inputs there are.
    """

    taps: tuple[int, ...]
    first: int
    step: int
    count: int


def phases(
    kernel: int, stride: int, dilation: int, begin: int, end: int, extra: int
) -> list[Phase]:
    """Every phase along one axis; `begin` and `end` are its padding, `extra` the output padding."""
    reach = dilation * (kernel - 1) + extra + 1 - begin - end
    found = []
    for phase in range(stride):
        taps = tuple(k for k in range(kernel) if (k * dilation - phase - begin) % stride == 0)
        last = taps[-1] if taps else 0
        first = (phase + begin - last * dilation) // stride
        step = dilation // gcd(stride, dilation)
        found.append(Phase(taps[::-1], first, step, -((phase - reach) // stride) - 1))
    return found


def lower(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A call of a transposed convolution as a call of one function."""
    data, weight = call.args
    window = _Window.of(call)
    combinations = list(product(*_along(call)))
    axes = [window.kernel_layout.index(dim) for dim in window.dims]
    parts = [
        _taps(builder, weight, axes, [phase.taps for phase in chosen])
        for chosen in combinations
        if all(phase.taps for phase in chosen)
    ]

    def compute(x: te.Tensor, *weights: te.Tensor) -> te.Tensor:
        rest = iter(weights)
        sums = [
            window.sum(x, next(rest), chosen) if all(phase.taps for phase in chosen) else None
            for chosen in combinations
        ]
        strides = [int(stride) for stride in call.attrs.strides]
        where = [window.layout.index(d) for d in window.dims]
        return _interleaved(sums, where, strides, call.ty)

    return _lowered(builder, compute, data, *parts)


def lower_as_product(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """As `lower`, but as one sum where all phases are one product."""
    along = _along(call)
    strides = [len(each) for each in along]
    if int(call.attrs.groups) > 1 or max(strides) == 1 or not all(map(_is_product, along)):
        return lower(builder, call)
    window = _Window.of(call)

    def compute(x: te.Tensor, weight: te.Tensor) -> te.Tensor:
        sums = window.product(x, weight, strides)
        return window.interleaved(sums, strides, call.ty)

    return _lowered(builder, compute, *call.args)


def _is_product(along: Sequence[Phase]) -> bool:
    """Whether each phase has the tap of its number, and all read and write at the same places."""
    found = [(phase.taps, phase.first, phase.count) for phase in along]
    return found == [((number,), 0, 0) for number in range(len(along))]


def _lowered(
    builder: relax.BlockBuilder, compute: Callable[..., te.Tensor], *args: relax.Expr
) -> relax.Expr:
    """A call of the function that `compute` makes, which takes elementwise consumers in."""
    lowered = builder.call_te(compute, *args, primfunc_name_hint="conv_transpose")
    function = lowered.args[0]
    marked = builder.get()[function].with_attr("op_pattern", OUT_FUSABLE)
    builder.update_func(function, marked)
    return lowered


def _along(call: relax.Call) -> list[list[Phase]]:
    """The phases along each spatial axis."""
    attrs, window = call.attrs, _Window.of(call)
    rank = len(window.dims)
    padding = [int(p) for p in attrs.padding]
    shape = call.args[1].ty.shape
    sizes = [int(shape[window.kernel_layout.index(dim)]) for dim in window.dims]
    return [
        phases(sizes[a], int(attrs.strides[a]), int(attrs.dilation[a]), padding[a],
               padding[rank + a], int(attrs.output_padding[a]))
        for a in range(rank)
    ]  # fmt: skip


def _taps(
    builder: relax.BlockBuilder,
    weight: relax.Expr,
    axes: Sequence[int],
    taps: Sequence[tuple[int, ...]],
) -> relax.Expr:
    """The part of `weight` at `taps` along `axes`; of a constant it is a constant."""
    known = as_constant(weight, builder.lookup_binding)
    if known is not None:
        value = known.value.numpy()
        for axis, chosen in zip(axes, taps):
            value = value.take(chosen, axis)
        return constant(value)
    for axis, chosen in zip(axes, taps):
        where = relax.const(list(chosen), "int64")
        weight = builder.emit(op.take(weight, where, axis, mode="fast"))
    return weight


@dataclass(frozen=True)
class _Window:
    """How data and weight are laid out; `dims` are the letters of the spatial axes."""

    layout: str
    kernel_layout: str
    dims: list[str]
    groups: int

    @staticmethod
    def of(call: relax.Call) -> _Window:
        """The layouts of a call."""
        layout = str(call.attrs.data_layout)
        dims = [c for c in layout if c not in "NC"]
        return _Window(layout, str(call.attrs.kernel_layout), dims, int(call.attrs.groups))

    def product(self, x: te.Tensor, weight: te.Tensor, strides: Sequence[int]) -> te.Tensor:
        """``sums[phase, y] = x[y] w[phase]``, with a dim for each stride above 1."""
        apart = self._apart(strides)
        channel = te.reduce_axis((0, weight.shape[self.kernel_layout.index("I")]), "ci")

        def value(*at: Expr) -> Expr:
            out = dict(zip(self.layout, at[len(apart) :]))
            tap = dict.fromkeys(self.dims, tirx.const(0, "int64")) | dict(zip(apart, at))
            tap |= {"I": channel, "O": out["C"]}
            factors = (
                x(*({**out, "C": channel}[c] for c in self.layout)),
                weight(*(tap[c] for c in self.kernel_layout)),
            )
            return te.sum(factors[0] * factors[1], axis=channel)

        size = dict(zip(self.layout, x.shape))
        size["C"] = weight.shape[self.kernel_layout.index("O")]
        shape = [*apart.values(), *(size[c] for c in self.layout)]
        return te.compute(shape, value, name="phases")

    def interleaved(self, sums: te.Tensor, strides: Sequence[int], result: object) -> te.Tensor:
        """``out[.., s y + phase, ..] = sums[phase, .., y, ..]``."""
        apart = self._apart(strides)

        def value(*at: Expr) -> Expr:
            out = dict(zip(self.layout, at))
            phase = [out[d] % stride for d, stride in apart.items()]
            out |= {d: out[d] // stride for d, stride in apart.items()}
            return sums(*phase, *(out[c] for c in self.layout))

        return te.compute(list(result.shape), value, name="interleaved")  # type: ignore[attr-defined]

    def _apart(self, strides: Sequence[int]) -> dict[str, int]:
        """{axis: stride} for strides above 1."""
        return {d: stride for d, stride in zip(self.dims, strides) if stride > 1}

    def sum(self, x: te.Tensor, weight: te.Tensor, chosen: Sequence[Phase]) -> te.Tensor:
        """The convolution of one phase, in the layout of the data."""
        size = dict(zip(self.layout, x.shape))
        outer, inner = (weight.shape[self.kernel_layout.index(c)] for c in "OI")
        members = topi.utils.simplify(inner // self.groups)
        extents = {d: size[d] + phase.count for d, phase in zip(self.dims, chosen)}
        extents |= {"N": size["N"], "C": topi.utils.simplify(outer * self.groups)}
        padded, shift = self._padded(x, chosen)
        taps = {
            d: te.reduce_axis((0, len(phase.taps)), f"k{d.lower()}")
            for d, phase in zip(self.dims, chosen)
        }
        channel = te.reduce_axis((0, members), "ci")

        def value(*at: Expr) -> Expr:
            out = dict(zip(self.layout, at))
            read = out["C"] // outer * members + channel if self.groups > 1 else channel
            where = {
                d: out[d] + taps[d] * phase.step + shift[d] for d, phase in zip(self.dims, chosen)
            }
            where |= {"N": out["N"], "C": read}
            tap = {**taps, "I": read, "O": out["C"] % outer if self.groups > 1 else out["C"]}
            product = padded(*(where[c] for c in self.layout)) * weight(
                *(tap[c] for c in self.kernel_layout)
            )
            return te.sum(product, axis=[*taps.values(), channel])

        shape = [topi.utils.simplify(extents[c]) for c in self.layout]
        return te.compute(shape, value, name="phase")

    def _padded(self, x: te.Tensor, chosen: Sequence[Phase]) -> tuple[te.Tensor, dict[str, int]]:
        """The input with the zeros that the phase reads around it, and where its window starts."""
        before, after, shift = [0] * len(self.layout), [0] * len(self.layout), {}
        for d, phase in zip(self.dims, chosen):
            axis = self.layout.index(d)
            before[axis] = max(0, -phase.first)
            past = phase.count + phase.first + (len(phase.taps) - 1) * phase.step
            after[axis] = max(0, past)
            shift[d] = before[axis] + phase.first
        if not any(before + after):
            return x, shift
        return topi.nn.pad(x, before, after, 0.0), shift


def _interleaved(
    sums: Sequence[te.Tensor | None], axes: Sequence[int], strides: Sequence[int], result: object
) -> te.Tensor:
    """``out[.., s y + phase, ..] = sums[phase][.., y, ..]``; a phase without taps is zero."""
    if len(sums) == 1 and sums[0] is not None:
        return sums[0]
    zero = tirx.const(0, result.dtype)  # type: ignore[attr-defined]

    def value(*at: Expr) -> Expr:
        place = list(at)
        for axis, stride in zip(axes, strides):
            place[axis] = at[axis] // stride
        chosen = zero if sums[-1] is None else sums[-1](*place)
        numbers = list(product(*map(range, strides)))
        for number, total in list(zip(numbers, sums))[-2::-1]:
            here = [
                at[axis] % stride == phase
                for axis, stride, phase in zip(axes, strides, number)
                if stride > 1
            ]
            chosen = tirx.if_then_else(
                tirx.all(*here), zero if total is None else total(*place), chosen
            )
        return chosen

    return te.compute(list(result.shape), value, name="interleaved")  # type: ignore[attr-defined]


Lowering = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]
LOWERINGS: dict[str, Lowering] = {f"relax.nn.conv{rank}d_transpose": lower for rank in (1, 2, 3)}
"""{operator: lowering} of transposed convolutions."""

AS_PRODUCTS: dict[str, Lowering] = dict.fromkeys(LOWERINGS, lower_as_product)
"""The same for schedules that take the one sum for a matrix product."""
