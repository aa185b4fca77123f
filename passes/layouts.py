"""The layouts that operators are computed in: channels last, so that they fill the vectors."""

from __future__ import annotations

from tvm import relax

CONVOLUTIONS = {
    "relax.nn.conv1d": ["NWC", "OWI"],
    "relax.nn.conv2d": ["NHWC", "OHWI"],
    "relax.nn.conv3d": ["NDHWC", "ODHWI"],
    "relax.nn.conv1d_transpose": ["NWC", "IWO"],
    "relax.nn.conv2d_transpose": ["NHWC", "IHWO"],
    "relax.nn.conv3d_transpose": ["NDHWC", "IDHWO"],
}
"""{operator: layouts of its data and its weight}."""


def wanted(call: relax.Call) -> dict[str, list[str]]:
    """The layouts of a call, by the name of its operator; none if it takes those of its operands.

    Interpolation reads several neighbours of each pixel, at places that are the same for all its
    channels. The nearest pixel is only copied, which no change of layout makes up for.
    """
    name = getattr(call.op, "name", "")
    if name == "relax.image.resize2d" and str(call.attrs.method) != "nearest_neighbor":
        return {name: ["NHWC"]}
    return {name: CONVOLUTIONS[name]} if name in CONVOLUTIONS else {}
