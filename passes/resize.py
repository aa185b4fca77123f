"""Lowerings of relax.image.resize2d.

The nearest pixel of an image that is made larger by whole numbers needs no coordinates:

    y[.., h, w] = x[.., h // s, w // t]

for the modes in which every pixel is repeated. Interpolation is TVM's, with its producers computed
before it: it reads each of their elements several times.
"""

from __future__ import annotations

from tvm import relax, sym, te
from tvm.ir import Expr, Op

from .patterns import OUT_FUSABLE

NAME = "relax.image.resize2d"

REPEATING = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("half_pixel", "round"),
    ("pytorch_half_pixel", "round_prefer_floor"),
}
"""(coordinates, rounding) that take pixel i // s where the size grows s-fold: i / s rounded down,
and (i + 1/2) / s - 1/2, which is less than 1/2 away from it."""

MOST = 8
"""The largest factor that is looked for."""


def lower(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A call of resize2d as a call of one function."""
    attrs = call.attrs
    if str(attrs.method) == "nearest_neighbor":
        factors = _factors(call)
        mode = (str(attrs.coordinate_transformation_mode), str(attrs.rounding_method))
        if factors is not None and mode in REPEATING:
            return _repeat(builder, call, factors)
    lowered = Op.get(NAME).get_attr("FLegalize")(builder, call)
    if str(attrs.method) != "nearest_neighbor":
        function = lowered.args[0]
        marked = builder.get()[function].with_attr("op_pattern", OUT_FUSABLE)
        builder.update_func(function, marked)
    return lowered


def _factors(call: relax.Call) -> dict[int, int] | None:
    """{axis: how many times larger it becomes} of both spatial axes, if all are whole numbers."""
    layout, ana = str(call.attrs.layout), sym.Analyzer()
    found: dict[int, int] = {}
    for axis in (layout.index("H"), layout.index("W")):
        size, target = call.args[0].ty.shape[axis], call.ty.shape[axis]
        factor = next(
            (n for n in range(1, MOST + 1) if ana.can_prove_equal(size * n, target)), None
        )
        if factor is None:
            return None
        found[axis] = factor
    return found


def _repeat(builder: relax.BlockBuilder, call: relax.Call, factors: dict[int, int]) -> relax.Expr:
    def repeated(x: te.Tensor) -> te.Tensor:
        def value(*at: Expr) -> Expr:
            return x(*(i // factors[axis] if axis in factors else i for axis, i in enumerate(at)))

        return te.compute(list(call.ty.shape), value, name="resize")

    return builder.call_te(repeated, call.args[0], primfunc_name_hint="resize2d")


LOWERINGS = {NAME: lower}
"""{operator: lowering}."""
