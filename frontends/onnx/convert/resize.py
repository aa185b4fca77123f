"""Resize of the one or two spatial dims of [N, C, H, W] or [N, C, W]."""

from __future__ import annotations

from tvm import relax

from ..builder import Call, Converter, DeclinedError, Result

_METHODS = {"nearest": "nearest_neighbor", "linear": "linear", "cubic": "cubic"}


def _resize(call: Call) -> Result:
    shape, out = call.shape(0), call.out_shape()
    if len(shape) not in (3, 4) or shape[:2] != out[:2]:
        raise DeclinedError("only the dims after the first two, one or two of them, can be resized")
    if call.attr("antialias", 0) or call.attr("exclude_outside", 0):
        raise DeclinedError("antialias or exclude_outside")
    if call.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise DeclinedError("a policy to keep the aspect ratio")
    mode, coordinates = call.attr("mode", "nearest"), _coordinates(call)
    if coordinates != "align_corners":
        _check_scales(call)
    rounding = call.attr("nearest_mode", "round_prefer_floor" if call.version > 10 else "floor")
    data = call.tensor(0)
    if len(shape) == 3:
        data = call.emit(call.reshape(data, (*shape[:2], 1, shape[2])))
    resized = relax.op.image.resize2d(
        data,
        call.shape_expr(out[2:] if len(shape) == 4 else (1, out[2])),
        layout="NCHW",
        method=_METHODS[mode],
        coordinate_transformation_mode=coordinates,
        rounding_method=rounding if mode == "nearest" else "",
        cubic_alpha=call.attr("cubic_coeff_a", -0.75),
    )
    return resized if len(shape) == 4 else call.reshape(call.emit(resized), out)


def _check_scales(call: Call) -> None:
    """Declines scales that the sizes do not have: TVM computes with the ratio of the sizes."""
    position = 2 if call.version > 10 else 1
    scales = call.attr("scales") or (call.known(position) if call.has(position) else None)
    if scales is None or not len(scales):
        return
    if call.attr("axes") is not None:
        raise DeclinedError("scales of some axes only")
    for scale, size, target in zip(scales, call.shape(0), call.out_shape()):
        exact = (
            isinstance(size, int) and isinstance(target, int) and abs(size * scale - target) < 1e-4
        )
        if not exact and scale != round(scale):
            raise DeclinedError(f"a scale of {scale:g}, of which the sizes are only near")


def _coordinates(call: Call) -> str:
    default = "asymmetric" if call.version <= 10 else "half_pixel"
    mode = call.attr("coordinate_transformation_mode", default)
    if mode not in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        raise DeclinedError(f"coordinate transformation {mode}")
    return mode


CONVERTERS: dict[str, Converter] = {"Resize": _resize, "Upsample": _resize}
