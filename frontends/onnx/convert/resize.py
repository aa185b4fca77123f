"""Resize of the two spatial dims of an NCHW tensor."""

from __future__ import annotations

from tvm import relax

from ..builder import Call, Converter, DeclinedError, Result

_METHODS = {"nearest": "nearest_neighbor", "linear": "linear", "cubic": "cubic"}


def _resize(call: Call) -> Result:
    shape, out = call.shape(0), call.out_shape()
    if len(shape) != 4 or shape[:2] != out[:2]:
        raise DeclinedError("only the last two of four dims can be resized")
    if call.attr("antialias", 0) or call.attr("exclude_outside", 0):
        raise DeclinedError("antialias or exclude_outside")
    if call.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise DeclinedError("a policy to keep the aspect ratio")
    mode, coordinates = call.attr("mode", "nearest"), _coordinates(call)
    rounding = call.attr("nearest_mode", "round_prefer_floor" if call.version > 10 else "floor")
    return relax.op.image.resize2d(
        call.tensor(0),
        call.shape_expr(out[2:]),
        layout="NCHW",
        method=_METHODS[mode],
        coordinate_transformation_mode=coordinates,
        rounding_method=rounding if mode == "nearest" else "",
        cubic_alpha=call.attr("cubic_coeff_a", -0.75),
    )


def _coordinates(call: Call) -> str:
    default = "asymmetric" if call.version <= 10 else "half_pixel"
    mode = call.attr("coordinate_transformation_mode", default)
    if mode not in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        raise DeclinedError(f"coordinate transformation {mode}")
    return mode


CONVERTERS: dict[str, Converter] = {"Resize": _resize, "Upsample": _resize}
