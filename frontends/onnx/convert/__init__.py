"""Operators of the default domain, by family: {operator: converter}."""

from __future__ import annotations

from ..builder import Converter
from . import (
    control,
    conv,
    detection,
    elementwise,
    indexing,
    matmul,
    movement,
    norm,
    pool,
    quantized,
    recurrent,
    reduce,
    resize,
    sampling,
    search,
    sequences,
    signal,
    text,
    trees,
    trigonometry,
)

CONVERTERS: dict[str, Converter] = {
    **control.CONVERTERS,
    **conv.CONVERTERS,
    **detection.CONVERTERS,
    **elementwise.CONVERTERS,
    **indexing.CONVERTERS,
    **matmul.CONVERTERS,
    **movement.CONVERTERS,
    **norm.CONVERTERS,
    **pool.CONVERTERS,
    **quantized.CONVERTERS,
    **recurrent.CONVERTERS,
    **reduce.CONVERTERS,
    **resize.CONVERTERS,
    **sampling.CONVERTERS,
    **search.CONVERTERS,
    **sequences.CONVERTERS,
    **signal.CONVERTERS,
    **text.CONVERTERS,
    **trigonometry.CONVERTERS,
}

MACHINE_LEARNING: dict[str, Converter] = trees.CONVERTERS
"""Those of ai.onnx.ml; most of its operators become others (ml.py)."""
