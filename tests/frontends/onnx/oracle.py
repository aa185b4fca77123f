"""What ONNX Runtime computes for every tensor of a model, and what symbolic shapes say of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from tvmext.frontends.dims import as_symbol, evaluate
from tvmext.frontends.onnx.symbolic import Shapes


def every_tensor(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs of all nodes, by name, of one run without graph optimisation."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del exposed.graph.output[:]
    exposed.graph.output.extend(map(helper.make_empty_tensor_value_info, names))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(names, inputs)))


def dim_sizes(shapes: Shapes, inputs: dict[str, np.ndarray]) -> dict[str, int]:
    """The size of each free dim, read from the inputs in which it occurs bare."""
    sizes: dict[str, int] = {}
    for name, array in inputs.items():
        for size, actual in zip(shapes.values[name].shape, array.shape, strict=True):
            if as_symbol(size):
                assert sizes.setdefault(as_symbol(size), actual) == actual
    assert sizes.keys() == shapes.dims.keys()
    return sizes


def differences(shapes: Shapes, model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[str]:
    """Each dtype, dim and known element that is not what ONNX Runtime has."""
    sizes = dim_sizes(shapes, inputs)
    found = [f"guard {guard} fails" for guard in shapes.guards if not guard.holds(sizes)]
    for name, array in {**every_tensor(model, inputs), **inputs}.items():
        value = shapes.values[name]
        if value.dtype != array.dtype.name:
            found.append(f"{name}: dtype {value.dtype}, is {array.dtype.name}")
        if not shapes.is_known(name):
            continue
        shape = tuple(evaluate(size, sizes) for size in value.shape)
        if shape != array.shape:
            found.append(f"{name}: {value} is {shape}, not {array.shape}")
        elif value.data is not None:
            data = [evaluate(element, sizes) for element in value.data.flat]
            if not np.array_equal(np.array(data).reshape(shape), array, equal_nan=True):
                found.append(f"{name}: elements {data}, not {array.tolist()}")
    return found
