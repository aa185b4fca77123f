"""Small ONNX models, and their import run by plain TVM.

No pass or schedule of ours in between, but for the lowerings, which define what TVM leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tvm
from onnx import ModelProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tvm import relax

from tvmext.frontends.model import Model
from tvmext.passes.legalize import LEGALIZE


def one_node(
    op: str,
    arrays: Sequence[np.ndarray | None],
    *,
    constants: Mapping[int, np.ndarray] | None = None,
    shapes: Mapping[int, Sequence[int | str]] | None = None,
    outputs: int = 1,
    opset: int = 20,
    **attributes: object,
) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """A model of one node and its inputs by name.

    `arrays[k]` is input k at run time, None an omitted one; `constants[k]` an initializer in its
    place; `shapes[k]` declares the dims of input k, a text being a dynamic dim.
    """
    constants, shapes = constants or {}, shapes or {}
    names = [f"x{k}" for k in range(max([len(arrays), *(k + 1 for k in constants)]))]
    inputs, feeds = [], {}
    for k, array in enumerate(arrays):
        if array is None:
            names[k] = names[k] if k in constants else ""
            continue
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(helper.make_tensor_value_info(names[k], kind, shapes.get(k, array.shape)))
        feeds[names[k]] = array
    results = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(op, names, results, name="the_node", **attributes)
    graph = helper.make_graph(
        [node],
        "one_node",
        inputs,
        [helper.make_empty_tensor_value_info(name) for name in results],
        [numpy_helper.from_array(array, names[k]) for k, array in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    ), feeds


def run(model: Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of `model` by stock TVM on one CPU thread."""
    module = relax.transform.DecomposeOpsForInference()(model.mod)
    module = relax.transform.LegalizeOps(LEGALIZE)(module)
    machine = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
    values = [feeds[spec.name] for spec in model.inputs] + list(model.params.values())
    results = machine["main"](*(tvm.runtime.tensor(np.array(v, order="C")) for v in values))
    tensors = [results] if len(model.outputs) == 1 else list(results)
    return [tensor.numpy() for tensor in tensors]


def assert_matches(model: Model, proto: ModelProto, feeds: Mapping[str, np.ndarray]) -> None:
    """Outputs equal onnx.reference in dtype, shape and value, and have the shapes promised."""
    expected = ReferenceEvaluator(proto).run(None, dict(feeds))
    for spec, got, want in zip(model.outputs, run(model, feeds), expected, strict=True):
        want = np.asarray(want)
        assert (got.dtype, got.shape) == (want.dtype, want.shape), spec.name
        assert all(dim == size for dim, size in zip(spec.shape, got.shape) if isinstance(dim, int))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=spec.name)
