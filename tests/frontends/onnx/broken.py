"""Models of a node or two, with whatever is wrong in them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def value(name, dims, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, dims)


def model(nodes, inputs=None, outputs=None, weights=(), opset=20, ir=10, **fields) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", [2, 3])] if inputs is None else inputs,
        [value("y", None)] if outputs is None else outputs,
        list(weights),
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, **fields)


def node(op="Relu", inputs=("x",), outputs=("y",), **attributes):
    return helper.make_node(
        op, list(inputs), list(outputs), name=f"node_{outputs[0]}", **attributes
    )


def weight(name="w", array=None, **fields) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones((2, 3), np.float32) if array is None else array, name)
    for key, content in fields.items():
        if isinstance(content, list):
            del getattr(tensor, key)[:]
            getattr(tensor, key).extend(content)
        else:
            setattr(tensor, key, content)
    return tensor


def looping(body: str, condition: str) -> ModelProto:
    """A Loop over `v`, whose body gives `condition` and `a`."""
    return onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        g (int64 n, bool go, float[2] x) => (float[2] y) {{
            y = Loop(n, go, x) <body = b (int64 i, bool c, v) => ({condition}, a) {{ {body} }}>
        }}""")


def with_weight(tensor) -> ModelProto:
    return model([node("Add", ("x", "w"))], weights=[tensor])


def external(name="w", dims=(2, 3), **fields) -> TensorProto:
    tensor = TensorProto(name=name, dims=dims, data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    for key, content in fields.items():
        tensor.external_data.add(key=key, value=str(content))
    return tensor


def referring() -> onnx.NodeProto:
    made = node("Elu", alpha=1.0)
    made.attribute[0].ref_attr_name = "alpha"
    return made


def body(outputs: int) -> onnx.GraphProto:
    names = [f"b{k}" for k in range(outputs)]
    nodes = [helper.make_node("Constant", [], [name], value_float=1.0) for name in names]
    return helper.make_graph(nodes, "body", [], [value(name, []) for name in names])


def with_sparse(dims, places, kind=np.int64) -> ModelProto:
    proto = model([node("Add", ("x", "w"))])
    values = weight(array=np.ones(len(places), np.float32))
    indices = weight("", np.array(places, kind))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, dims))
    return proto


def calling(count: int, last: str) -> ModelProto:
    """Functions f0, f1, .. of which each calls the next one twice."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    proto = model([helper.make_node("f0", ["x"], ["y"], domain="own")])
    proto.opset_import.append(imports[1])
    for k in range(count):
        called = f"f{k + 1}" if k + 1 < count else last
        domain = "own" if called.startswith("f") else ""
        nodes = [
            helper.make_node(called, [a], [b], domain=domain) for a, b in (("a", "b"), ("b", "c"))
        ]
        proto.functions.append(helper.make_function("own", f"f{k}", ["a"], ["c"], nodes, imports))
    return proto


def in_function(*nodes: onnx.NodeProto) -> ModelProto:
    """A function of a and c made of `nodes`, and its call."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    proto = model([helper.make_node("f", ["x"], ["y"], domain="own")])
    proto.opset_import.append(imports[1])
    proto.functions.append(helper.make_function("own", "f", ["a"], ["c"], nodes, imports))
    return proto


def loops(count: int) -> ModelProto:
    """A loop around a loop around ..; each appends to what it carries."""
    made = node("Concat", ("x", "v"), ("w",), axis=0)
    for _ in range(count):
        inputs = [value("i", [], 7), value("g", [], 9), value("v", None)]
        graph = helper.make_graph([made], "body", inputs, [value("g", [], 9), value("w", None)])
        made = node("Loop", ("n", "", "v"), ("w",), body=graph)
    made.input[2], made.output[0] = "x", "y"
    return model([made], inputs=[value("x", [2]), value("n", [], 7)])
