"""One operator at one size, as an ONNX model that is built when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 17
Arrays = Mapping[str, np.ndarray]
TorchCall = Callable[[Any, Mapping[str, Any]], Callable[[], object]]


@dataclass(frozen=True)
class Graph:
    """A model and inputs for it. Weights are initializers, inputs are what changes at run time."""

    nodes: Sequence[onnx.NodeProto]
    inputs: Arrays
    output: str
    weights: Arrays
    opset: int = OPSET
    domains: tuple[tuple[str, int], ...] = ()
    dtype: str = "float32"
    """Of the output."""

    def model(self) -> onnx.ModelProto:
        """The model, every dim of its inputs fixed."""
        graph = helper.make_graph(
            list(self.nodes),
            "case",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
                )
                for name, array in self.inputs.items()
            ],
            [
                helper.make_tensor_value_info(
                    self.output, helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)), None
                )
            ],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        opsets = [helper.make_opsetid(domain, n) for domain, n in (("", self.opset), *self.domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return onnx.shape_inference.infer_shapes(model)


@dataclass(frozen=True)
class Case:
    """`graph` builds what we compile; `rivals` build the same computation in other words.

    ONNX Runtime gets `graph` and all `rivals`, and the fastest counts. `flops` counts additions
    and multiplications that the result needs; 0 where memory is all that matters. `moved`, in
    bytes, replaces the size of inputs, weights and outputs where not all of them are touched.
    `torch`, given the module and all tensors by name, returns what torch runs. `interior`: the
    operator usually stands between others of its kind, so what the edges of the graph cost is
    told apart.
    """

    name: str
    graph: Callable[[], Graph]
    flops: float = 0.0
    moved: float | None = None
    rivals: tuple[Callable[[], Graph], ...] = ()
    torch: TorchCall | None = None
    interior: bool = False

    @property
    def family(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """float32 numbers from a normal distribution, the same on every machine."""
    drawn = np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)
    return drawn * np.float32(scale)


def weight(*shape: int, fan_in: int, seed: int = 1) -> np.ndarray:
    """float32 weights that keep the variance of what they multiply."""
    return random(*shape, seed=seed, scale=fan_in**-0.5)


def node(op: str, inputs: str, outputs: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    """A node; inputs and outputs are names with spaces between, "_" for an input left out."""
    names = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), domain=domain, **attributes)
