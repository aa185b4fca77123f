"""TVM's own ONNX converters as the fallback for operators of the default domain.

Its converter classes are used as they are, one at a time; its importer, which dispatches by
operator name alone and prints what it cannot do, is not.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from onnx import helper
from tvm import relax

from .builder import Call, DeclinedError, Result

CONST_ELEMENTS = 1024
"""Weights up to this size are constants here: many stock converters ask for their values."""

WRONG = frozenset({
    "Attention",  # the one of com.microsoft under the name of ONNX's own
    "Loop", "Scan", "If",
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SequenceAt", "SplitToSequence", "ConcatFromSequence",
    "Optional", "OptionalHasElement", "OptionalGetElement",
})  # fmt: skip
"""Not taken from TVM: another operator of the same name, or a result that is not a tensor."""


def _wrong(call: Call) -> str:
    """A setting with which TVM's converter differs from ONNX, or which it does not look at."""
    mode = call.attr("mode")
    if call.op == "GridSample":
        padding = call.attr("padding_mode", "zeros")
        if padding not in ("zeros", "border", "reflection"):
            return f"padding_mode {padding}"
        if mode not in (None, "bilinear", "linear", "nearest", "bicubic", "cubic"):
            return f"mode {mode}"
    if call.op == "Hardmax" and call.dtype(0) == "bfloat16":
        return "bfloat16"
    return f"mode {mode}" if call.op == "RoiAlign" and mode == "max" else ""


CONTINUES = frozenset({"RoiAlign"})
"""Operators of which TVM's converter does what ours declines: averages of regions."""


@lru_cache(maxsize=1)
def _classes() -> dict[str, Any]:
    from tvm.relax.frontend.onnx import onnx_frontend

    everything = onnx_frontend._get_convert_map()
    standard = {name for name in everything if _is_standard(name)}
    return {name: everything[name] for name in standard - WRONG}


def _is_standard(name: str) -> bool:
    from onnx import defs

    return defs.has(name, "")


def operators() -> frozenset[str]:
    """Operators of the default domain that TVM converts."""
    return frozenset(_classes())


def convert(call: Call) -> Result:
    """The node through TVM's converter; DeclinedError with its complaint if that fails."""
    from tvm.relax.frontend.onnx import onnx_frontend

    if wrong := _wrong(call):
        raise DeclinedError(wrong)
    inputs = onnx_frontend.onnx_input(
        [_operand(call, index) if call.has(index) else None for index in range(len(call))]
    )
    attributes = {
        attribute.name: helper.get_attribute_value(attribute) for attribute in call.node.attribute
    }
    attributes["tvm_custom"] = {"name": call.node.name, "num_outputs": len(call.node.output)}
    build = _classes()[call.op].get_converter(call.version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = build(call.builder.bb, inputs, attributes, [{}, {}])
        if not isinstance(result, relax.Expr):
            raise DeclinedError(f"TVM's converter returned a {type(result).__name__}")
        return call.builder.bb.normalize(result)


def _operand(call: Call, index: int) -> relax.Expr:
    array = call.known(index)
    name = call.node.input[index]
    if array is None or array.size > CONST_ELEMENTS or (array.dtype == object and _symbolic(array)):
        return call.builder.tensor(name)
    return relax.const(np.asarray(array, call.dtype(index)), call.dtype(index))


def _symbolic(array: np.ndarray) -> bool:
    from ..dims import Expr

    return any(isinstance(element, Expr) for element in array.flat)
