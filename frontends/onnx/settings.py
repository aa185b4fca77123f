"""Inputs of a model that say how something is computed, or how large its result is.

Most of ONNX's attributes became inputs over the years: the axes of a reduction, the sizes of a
Resize. Networks give them as constants; ONNX's own tests give them as inputs of the graph.
"""

from __future__ import annotations

from onnx import ModelProto, TensorProto

from . import graph as graphs

OPERANDS = {
    "AffineGrid": (1,), "BlackmanWindow": (0,), "CenterCropPad": (1,), "Col2Im": (1, 2),
    "ConstantOfShape": (0,), "CumProd": (1,), "CumSum": (1,), "DFT": (1, 2), "Dropout": (1, 2),
    "Expand": (1,), "HammingWindow": (0,), "HannWindow": (0,), "If": (0,), "Loop": (0, 1),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4), "OneHot": (1, 2), "Pad": (1, 2, 3), "Range": (0, 1, 2),
    "Reshape": (1,), "Resize": (1, 2, 3), "STFT": (1, 3), "SequenceAt": (1,), "SequenceErase": (1,),
    "SequenceInsert": (2,), "Slice": (1, 2, 3, 4), "Split": (1,), "SplitToSequence": (1,),
    "Squeeze": (1,), "Tile": (1, 2), "TopK": (1,), "Trilu": (1,), "Unsqueeze": (1,),
    "Upsample": (1,),
    **{f"Reduce{kind}": (1,) for kind in (
        "L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"
    )},
}  # fmt: skip
"""Positions of such inputs."""

MAX_ELEMENTS = 256
"""What has more elements than this says nothing about sizes."""


def inputs(model: ModelProto) -> tuple[str, ...]:
    """The inputs of the graph from which such operands are computed, small tensors all."""
    needed: set[str] = set()
    for node in reversed(model.graph.node):
        if graphs.core_op(node) in ("Shape", "Size"):
            continue
        if not needed.isdisjoint(node.output):
            needed.update(graphs.reads(node))
        positions = OPERANDS.get(graphs.core_op(node), ())
        needed.update(node.input[k] for k in positions if k < len(node.input) and node.input[k])
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(
        value.name
        for value in model.graph.input
        if value.name in needed - constants and _is_small(value.type.tensor_type)
    )


def _is_small(tensor: TensorProto) -> bool:
    count = 1
    for dim in tensor.shape.dim:
        count *= dim.dim_value if dim.HasField("dim_value") else MAX_ELEMENTS + 1
    return count <= MAX_ELEMENTS
