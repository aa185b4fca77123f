"""Mutations that know ONNX: cycles, names, types, sizes, nesting, functions, external data."""

from __future__ import annotations

import random

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.defs import get_all_schemas

SIZES = (0, 1, 2, 3, 7, 17, 1000, 1 << 16, 1 << 31, 1 << 40, (1 << 63) - 1, -1, -(1 << 63))
NAMES = (
    "n", "m", "n+1", "-", "0", "", "n*m", "n//m", "1//0", "n%0", "-n", "((9**8)**8)**8", "(" * 150,
    "9" * 199, "+".join("abcdefgh") + ")*(n+m" * 20, "None", "n" * 5000,
)  # fmt: skip
VERSIONS = (-1, 0, 1, 5, 6, 7, 9, 10, 11, 12, 13, 17, 18, 21, 24, 27, 28, 29, 1000, (1 << 63) - 1)
LOCATIONS = (
    "weights.bin", "./weights.bin", "../weights.bin", "../outside/weights.bin", "link.bin",
    "folder/../../weights.bin", "/etc/passwd", "/dev/zero", "/proc/self/mem", "missing.bin", ".",
    "", "file:///etc/passwd", "~/.profile", "weights.bin\0.txt", "a" * 5000,
)  # fmt: skip
"""Of external data; the worker lays these files out (check.py)."""
MANY = 24
_OPERATORS = sorted({schema.name for schema in get_all_schemas() if not schema.domain})


def cycle(rng: random.Random, model: ModelProto) -> str:
    nodes = _with_inputs(model)
    reader, made = rng.choice(nodes), rng.choice([n for n in nodes if n.output])
    reader.input[rng.randrange(len(reader.input))] = rng.choice(made.output)
    return "cycle"


def same_name(rng: random.Random, model: ModelProto) -> str:
    names = [name for node in model.graph.node for name in node.output]
    names += [value.name for value in model.graph.input]
    node = rng.choice(model.graph.node)
    node.output[rng.randrange(len(node.output))] = rng.choice(names)
    return "same name"


def rewire(rng: random.Random, model: ModelProto) -> str:
    """A node reads another value: of other dims, of another type."""
    names = [name for node in model.graph.node for name in node.output]
    names += [value.name for value in [*model.graph.input, *model.graph.initializer]]
    node = rng.choice(_with_inputs(model))
    node.input[rng.randrange(len(node.input))] = rng.choice([*names, ""])
    return "rewire"


def operator(rng: random.Random, model: ModelProto) -> str:
    """Another operator, most often with the same attributes."""
    node = rng.choice(model.graph.node)
    node.op_type = rng.choice(_OPERATORS)
    if rng.random() < 0.5:
        del node.attribute[:]
    return f"operator {node.op_type}"


def attribute(rng: random.Random, model: ModelProto) -> str:
    """An attribute of another type."""
    node = rng.choice([n for n in model.graph.node if n.attribute])
    at = rng.randrange(len(node.attribute))
    name = node.attribute[at].name
    if rng.random() < 0.3:
        node.attribute[at].type = rng.randrange(16)
        return f"type of {name}"
    tensor = helper.make_tensor("t", TensorProto.INT64, [2], [1, -1])
    sizes = [rng.choice(SIZES) for _ in range(rng.randrange(6))]
    value = rng.choice((1, -1, 0, 1.5, "text", b"\xff", sizes, [0.5], ["a", "b"], tensor))
    kind = AttributeProto.INTS if value == [] else None
    node.attribute[at].CopyFrom(helper.make_attribute(name, value, attr_type=kind))
    return f"attribute {name}"


def opset(rng: random.Random, model: ModelProto) -> str:
    model.opset_import[0].version = rng.choice(VERSIONS)
    return f"opset {model.opset_import[0].version}"


def dims(rng: random.Random, model: ModelProto) -> str:
    """Another size or rank of an input or an output."""
    value = rng.choice([*model.graph.input, *model.graph.output])
    shape = value.type.tensor_type.shape.dim
    if shape and rng.random() < 0.7:
        dim = rng.choice(shape)
        if rng.random() < 0.3:
            dim.dim_param = rng.choice(NAMES)
        else:
            dim.dim_value = rng.choice(SIZES)
    elif rng.random() < 0.5:
        for _ in range(rng.choice((1, 2, 20, 200))):
            shape.add(dim_value=rng.choice((1, 1, 2, 1 << 20)))
    else:
        del shape[rng.randrange(len(shape) + 1) :]
    return f"dims of {value.name[:20]}"


def kind(rng: random.Random, model: ModelProto) -> str:
    """Another type of an input or a weight, or no tensor at all."""
    found = rng.choice([*model.graph.input, *model.graph.initializer])
    code = rng.choice(TensorProto.DataType.values())
    if isinstance(found, TensorProto):
        found.data_type = code
    elif rng.random() < 0.8:
        found.type.tensor_type.elem_type = code
    else:
        make = rng.choice((helper.make_sequence_type_proto, helper.make_optional_type_proto))
        found.type.CopyFrom(make(found.type))
    return f"kind {code}"


def weight(rng: random.Random, model: ModelProto) -> str:
    """An input becomes a weight: sizes, axes and indices with extreme values among them."""
    value = rng.choice(model.graph.input)
    count = rng.choice((0, 1, 2, 4))
    shape = rng.choice(([count], [count, 1], [])) if count == 1 else [count]
    code = value.type.tensor_type.elem_type
    if code in (TensorProto.INT64, TensorProto.INT32):
        limit = 1 << (63 if code == TensorProto.INT64 else 31)
        values = [min(max(rng.choice(SIZES), -limit), limit - 1) for _ in range(count)]
    else:
        code = TensorProto.FLOAT
        values = [rng.choice((0.0, 1.0, 1e30, float("nan"))) for _ in range(count)]
    model.graph.initializer.append(helper.make_tensor(value.name, code, shape, values))
    return f"weight {shape}"


def length(rng: random.Random, model: ModelProto) -> str:
    """A weight whose dims and data do not match, or huge ones that hold nothing."""
    tensor = rng.choice(model.graph.initializer)
    if rng.random() < 0.5 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)
    elif rng.random() < 0.5:
        tensor.dims[:] = [rng.choice(SIZES) for _ in range(rng.randrange(5))]
    else:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    return "length"


def sparse(rng: random.Random, model: ModelProto) -> str:
    value = rng.choice(model.graph.input)
    proto = model.graph.sparse_initializer.add()
    proto.dims[:] = [rng.choice(SIZES) for _ in range(rng.randrange(4))]
    count = rng.randrange(4)
    places = [rng.choice((0, 1, -1, 1 << 40)) for _ in range(count)]
    proto.values.CopyFrom(helper.make_tensor(value.name, TensorProto.FLOAT, [count], [1.0] * count))
    proto.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [count], places))
    return "sparse"


def external(rng: random.Random, model: ModelProto) -> str:
    """Data in a file: beside the model, outside of its folder, or no file at all."""
    tensors = [*model.graph.initializer]
    tensors += [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    if not tensors:
        tensors = [model.graph.initializer.add(name=model.graph.input[0].name, data_type=1)]
    tensor = rng.choice(tensors)
    tensor.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.7:
        tensor.ClearField("raw_data")
    location = rng.choice(LOCATIONS)
    fields = {"location": location}
    for key in ("offset", "length", "checksum"):
        if rng.random() < 0.3:
            fields[key] = str(rng.choice((*SIZES, "0x10", "1e3", "")))
    for key, value in fields.items():
        tensor.external_data.add(key=key, value=value)
    return f"external {location[:30]!r}"


def nest(rng: random.Random, model: ModelProto) -> str:
    """The graph inside Ifs inside Ifs, or a Loop or Scan around one node."""
    depth = rng.choice((1, 2, 5, 20, 30, 40))
    outputs = list(model.graph.output)
    body = GraphProto(name="body", node=model.graph.node, output=outputs)
    held = "held" if rng.random() < 0.5 else model.graph.input[0].name
    names = [value.name for value in outputs]
    for _ in range(depth):
        choice = helper.make_node("If", [held], names, then_branch=body, else_branch=body)
        if depth > 5:
            del choice.attribute[1]
            choice.attribute.append(helper.make_attribute("else_branch", GraphProto(name="none")))
        body = GraphProto(name="body", node=[choice], output=outputs)
    model.graph.ClearField("node")
    model.graph.node.extend(body.node)
    if held == "held":
        model.graph.input.append(helper.make_tensor_value_info(held, TensorProto.BOOL, []))
    return f"nest {depth}"


def functions(rng: random.Random, model: ModelProto) -> str:
    """Functions that call themselves, each other, or each the next one twice."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    count = rng.choice((1, 2, MANY))
    ring = rng.random() < 0.5
    for number in range(count):
        called = f"f{(number + 1) % count}" if ring or number + 1 < count else ""
        call = helper.make_node(called or "Relu", ["a"], ["b"], domain="own" if called else "")
        again = helper.make_node(called or "Relu", ["b"], ["c"], domain=call.domain)
        model.functions.append(
            helper.make_function("own", f"f{number}", ["a"], ["c"], [call, again], imports)
        )
    model.opset_import.append(imports[1])
    node: NodeProto = rng.choice(model.graph.node)
    node.op_type, node.domain = "f0", "own"
    del node.input[1:], node.output[1:], node.attribute[:]
    return f"functions {count} {'ring' if ring else ''}"


ALL = (
    cycle, same_name, rewire, rewire, operator, operator, attribute, attribute, opset, dims, dims,
    kind, kind, weight, weight, length, sparse, external, nest, functions,
)  # fmt: skip


def _with_inputs(model: ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if node.input]
