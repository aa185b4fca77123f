"""Resize: TVM's kernel of two spatial dims where it is ONNX's, else a sum along each axis."""

from __future__ import annotations

from tvm import relax

from ..builder import Call, Converter, DeclinedError, Result
from .resample import Axis, resample

_METHODS = {"nearest": "nearest_neighbor", "linear": "linear", "cubic": "cubic"}
_COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")


def _resize(call: Call) -> Result:
    return _images(call) if _is_of_images(call) else resample(call, _axes(call))


def _is_of_images(call: Call) -> bool:
    """Whether TVM's kernel, which computes with the ratio of the sizes, computes what ONNX says."""
    shape, out = call.shape(0), call.out_shape()
    return (
        len(shape) in (3, 4)
        and shape[:2] == out[:2]
        and not call.attr("antialias", 0)
        and not call.attr("exclude_outside", 0)
        and call.attr("keep_aspect_ratio_policy", "stretch") == "stretch"
        and _coordinates(call) in _COORDINATES
        and not (_coordinates(call) == "align_corners" and 1 in out[2:])
        and _is_exact(call)
    )


def _is_exact(call: Call) -> bool:
    """Whether the scales are the ratios of the sizes."""
    scales = _scales(call)
    return scales is None or all(
        scale == round(scale)
        or (isinstance(size, int) and isinstance(target, int) and abs(size * scale - target) < 1e-4)
        for scale, size, target in zip(scales, call.shape(0), call.out_shape())
    )


def _scales(call: Call) -> list[float] | None:
    """The scales of all axes, where the node gives scales."""
    if call.attr("scales"):
        return list(call.attr("scales"))
    position = 2 if call.version > 10 and call.op == "Resize" else 1
    known = call.known(position) if call.has(position) else None
    if known is None or not known.size:
        return None
    axes = call.attr("axes") or range(call.rank(0))
    given = dict(zip((axis % call.rank(0) for axis in axes), map(float, known.flat)))
    return [given.get(axis, 1.0) for axis in range(call.rank(0))]


def _axes(call: Call) -> list[Axis]:
    """The axes that change, with their scales and regions."""
    rank = call.rank(0)
    sizes, targets = (call.fixed(dims, "the image") for dims in (call.shape(0), call.out_shape()))
    if 0 in sizes:
        raise DeclinedError("an image without elements")
    named = [axis % rank for axis in call.attr("axes") or range(rank)]
    scales = _scales(call) or [target / size for size, target in zip(sizes, targets)]
    policy = call.attr("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch" and call.has(3):
        wanted = call.need_ints(3, "the sizes")
        pick = min if policy == "not_larger" else max
        common = pick(want / sizes[axis] for want, axis in zip(wanted, named))
        scales = [common if axis in named else 1.0 for axis in range(rank)]
    roi = dict.fromkeys(range(rank), (0.0, 1.0))
    if _coordinates(call) == "tf_crop_and_resize":
        region = call.known(1)
        if region is None:
            raise DeclinedError("a region that is known only at run time")
        ends = list(map(float, region.flat))
        roi |= {axis: (ends[k], ends[k + len(named)]) for k, axis in enumerate(named)}
    return [
        Axis(axis, sizes[axis], targets[axis], scales[axis], roi[axis])
        for axis in range(rank)
        if scales[axis] != 1 or sizes[axis] != targets[axis] or roi[axis] != (0.0, 1.0)
    ]


def _images(call: Call) -> Result:
    shape, out = call.shape(0), call.out_shape()
    mode, coordinates = call.attr("mode", "nearest"), _coordinates(call)
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


def _coordinates(call: Call) -> str:
    default = "asymmetric" if call.version <= 10 else "half_pixel"
    return call.attr("coordinate_transformation_mode", default)


CONVERTERS: dict[str, Converter] = {"Resize": _resize, "Upsample": _resize}
