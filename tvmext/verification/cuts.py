"""A network cut at its quantized values: each is computed of those that the reference has.

    q = QuantizeLinear(f(p), s, z)          off by a step at most where p is the reference's

One rounding the other way is amplified by what follows it, in a deep network of random weights
until outputs have little in common (docs/networks.md). Cut, nothing follows. The parts are compiled
for the sizes of the values that they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx import ModelProto, helper

from tvmext.errors import TvmextError
from tvmext.frontends.onnx.graph import label

from .compare import Comparison, Tolerance, Tolerances, compare
from .divergence import Compiler
from .reference import Arrays, make_reference
from .report import Divergence
from .source import OnnxSource
from .steps import is_quantizing

STEP = Tolerance(0, 1)
AMPLIFIED = (
    "every quantized value is within a step where it is computed of the reference's values: the "
    "difference comes from roundings that the network amplifies"
)


def first_wrong_step(
    source: OnnxSource,
    compiler: Compiler,
    reference: str,
    inputs: Arrays,
    dims: Mapping[str, Any],
    tolerances: Tolerances,
) -> Divergence | None:
    """The first quantized value or output that is wrong, or that none is.

    None where there is no quantized value, or where the parts do not compile.
    """
    makers = {name: node for node in source.graph.node for name in node.output}
    values = [name for name, node in makers.items() if is_quantizing(node)]
    if not values:
        return None
    outputs = [value.name for value in source.graph.output if value.name not in values]
    variant = source.with_outputs([*values, *outputs])
    expected = make_reference(variant.SerializeToString(), reference).run(inputs)
    given = {f"{name}:given": expected[name] for name in values}
    try:
        got = compiler(_cut(variant, given), dims).run(inputs | given)
    except TvmextError:
        return None

    def compared(name: str) -> Comparison:
        wanted = expected[name]
        whole = name in values and wanted.dtype.kind in "iu"
        return compare(name, got[name], wanted, STEP if whole else tolerances(name, wanted))

    for name in makers:
        if name in expected and not (found := compared(name)).passed:
            node = makers[name]
            return Divergence(len(expected), name, label(node), node.op_type, found)
    return Divergence(len(expected), reason=AMPLIFIED)


def _cut(model: ModelProto, given: Arrays) -> ModelProto:
    """`model`, whose nodes read the values that `given` has as inputs."""
    cut = ModelProto()
    cut.CopyFrom(model)
    for node in cut.graph.node:
        for place, name in enumerate(node.input):
            if f"{name}:given" in given:
                node.input[place] = f"{name}:given"
    for name, array in given.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        cut.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    return cut
