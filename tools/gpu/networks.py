"""Whole networks as problems: the zoo in float16, the blocks of the VTC paper in bfloat16."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.zoo import light

from ..zoo.case import ZOO, drawn, networks
from .inputs import Arrays, Problem

TYPES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
SINGLE = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that stay float32, whatever the type of the data (ONNX, Resize: roi and scales)."""
ALLOWED = {"float16": 0.03, "bfloat16": 0.15}
"""Of the root mean square of an output: what a network of some fifty roundings may be off by."""


@dataclass(frozen=True)
class NetworkCase:
    """A network of the zoo in another type, at a batch."""

    network: str
    dtype: str
    batch: int

    family = "network"

    @property
    def name(self) -> str:
        return f"{self.network}-{self.dtype}-b{self.batch}"


def network_cases() -> list[NetworkCase]:
    """The zoo in float16 at batch 1; the blocks of VTC in bfloat16 at batch 1 and 16."""
    names = networks()
    blocks = [name for name in names if name.startswith("vtc_")]
    return [
        *(NetworkCase(name, "float16", 1) for name in names if name not in blocks),
        *(NetworkCase(name, "bfloat16", batch) for name in blocks for batch in (1, 16)),
    ]


@contextmanager
def network_problem(case: NetworkCase) -> Iterator[Problem]:
    """The problem; the file of the network goes with the context."""
    import onnxruntime

    with drawn(case.network, "static") as (path, _, _):
        model = onnx.load(path)
        arrays = light.make_inputs(model, batch=case.batch)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        right = np.asarray(session.run(None, arrays)[0], np.float32)
        del session
        converted = path.with_name("converted.onnx")
        fix_dims(model, arrays)
        light.save(narrowed(model, case.dtype), converted)
        del model

        def check(result: np.ndarray) -> float:
            got = np.asarray(result, np.float32)
            if got.shape != right.shape or not np.isfinite(got).all():
                return float("inf")
            scale = float(np.sqrt(np.mean(right**2))) or 1.0
            return float(np.sqrt(np.mean((got - right) ** 2))) / (ALLOWED[case.dtype] * scale)

        given = {name: _narrow(array, case.dtype) for name, array in arrays.items()}
        yield Problem(case.dtype, given, str(converted), check, torch_block(case))


def fix_dims(model: Any, arrays: Arrays) -> None:
    """Give the inputs the sizes of `arrays`, in place."""
    for value in model.graph.input:
        if value.name in arrays:
            for dim, size in zip(value.type.tensor_type.shape.dim, arrays[value.name].shape):
                dim.dim_value = size


def narrowed(model: Any, dtype: str) -> Any:
    """The model with `dtype` for float32, in place: weights, constants, casts, inputs, outputs."""
    wanted = TYPES[dtype]
    single = {
        node.input[i]
        for node in model.graph.node
        for i in SINGLE.get(node.op_type, ())
        if i < len(node.input) and node.input[i]
    }
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                attribute.t.name = node.output[0]
    for tensor in light.tensors(model):
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in single:
            array = _narrow(numpy_helper.to_array(tensor), dtype)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
                attribute.i = wanted
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        kind = value.type.tensor_type
        if kind.elem_type == TensorProto.FLOAT:
            kind.elem_type = wanted
    return model


def _narrow(array: np.ndarray, dtype: str) -> np.ndarray:
    if array.dtype != np.float32:
        return array
    return array.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16)


def torch_block(case: NetworkCase) -> Callable[[Any, list[Any]], Callable[[], Any]] | None:
    """A block of VTC as its authors' Python; the networks of the zoo have none here."""
    if not case.network.startswith("vtc_"):
        return None

    def make(torch: Any, tensors: list[Any]) -> Callable[[], Any]:
        sys.path.insert(0, str(Path(ZOO)))
        try:
            import make_vtc_blocks as blocks
        finally:
            sys.path.pop(0)
        torch.manual_seed(0)
        module, *_ = blocks.BLOCKS[case.network.removeprefix("vtc_")]()
        kind = getattr(torch, case.dtype)
        module = module.eval().requires_grad_(False).to(tensors[0].device, kind)
        return lambda: module(*tensors)

    return make
