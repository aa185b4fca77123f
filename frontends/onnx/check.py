"""What must hold before anything looks closer at a model; every error names file and node.

onnx.checker sees the graph last, because it stops at the first fault and names little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from tvmext.errors import ModelError, UnsupportedError, UnsupportedOp

from . import graph as graphs
from . import tensors
from .load import Source

EXPORT_AGAIN = "the exporter or a tool that changed the graph left it inconsistent; export it again"
MAX_DEPTH = 64
MAX_LOOPS = 8
"""Loops inside of loops: each looks at its body again where dims vary, hence at all in it."""
MAX_VERSION = (1 << 31) - 1
"""Of IR and operator sets: onnx.checker has room for no more."""
NO_NUMBERS = {
    onnx.TensorProto.STRING: ("strings", "turn text into numbers before the model"),
    onnx.TensorProto.COMPLEX64: ("complex numbers", "give real and imaginary parts of their own"),
    onnx.TensorProto.COMPLEX128: ("complex numbers", "give real and imaginary parts of their own"),
}
BODIES = {"If": ("then_branch", "else_branch"), "Loop": ("body",), "Scan": ("body",)}
"""The operators whose bodies are compiled, and the attributes that hold them."""


def check(source: Source) -> None:
    """Raises ModelError if the model breaks a rule of ONNX."""
    model, name = source.model, source.name
    if not model.graph.node and not model.graph.output:
        raise ModelError(f"'{name}' holds no graph", hint="is it an ONNX model? export it again")
    _check_text(source)
    _check_opsets(model, name)
    if not model.graph.output:
        raise ModelError(f"'{name}' has no outputs", hint="mark a value as output of the graph")
    _check_types(model.graph, source)
    _check_graph(model.graph, set(source.constants), name)
    _check_with_onnx(source)


def _check_text(source: Source) -> None:
    """Names must be UTF-8; protobuf hands on bytes where they are not."""
    graph = source.model.graph
    texts = [*source.constants, *(value.name for value in [*graph.input, *graph.output])]
    for node in graphs.all_nodes(graph):
        texts += [node.op_type, node.domain, node.name, *node.input, *node.output]
        texts += [attribute.name for attribute in node.attribute]
    for text in texts:
        if isinstance(text, bytes):
            raise ModelError(
                f"'{source.name}' has a name that is not UTF-8: {text[:40]!r}",
                hint="the file is damaged; download or export it again",
            )


def _check_opsets(model: ModelProto, name: str) -> None:
    newest = onnx.defs.onnx_opset_version()
    versions = graphs.opsets(model)
    for what, number in [("IR", max(model.ir_version, 1)), *versions.items()]:
        if not 1 <= number <= MAX_VERSION:
            raise ModelError(f"'{name}' uses version {number} of {what}", hint=EXPORT_AGAIN)
    if any(graphs.domain_of(node) == "" for node in model.graph.node) and "" not in versions:
        raise ModelError(f"'{name}' does not say which operator set it uses", hint=EXPORT_AGAIN)
    version = versions.get("", newest)
    if not 1 <= version <= newest:
        raise ModelError(
            f"'{name}' uses version {version} of the ONNX operators; 1 to {newest} exist here",
            hint=f"pip install -U onnx, or export with opset_version={min(newest, 20)}",
        )


def _check_types(graph: GraphProto, source: Source) -> None:
    for value in [*graph.input, *graph.output]:
        if not value.name:
            raise ModelError(
                f"'{source.name}' has an input or output without a name", hint=EXPORT_AGAIN
            )
    for value in graph.input:
        where = f"input '{value.name}' of '{source.name}'"
        if value.name in source.constants:
            continue
        kind = value.type.WhichOneof("value")
        if kind in ("sequence_type", "optional_type"):
            reason = "how many tensors it holds is not known"
            raise UnsupportedError(
                [UnsupportedOp(kind.replace("_type", " input"), "", 0, value.name, reason)],
                hint="say it with tvmext.frontends.onnx.with_elements(model, ..)",
            )
        if kind != "tensor_type":
            raise ModelError(f"{where} is not a tensor", hint="maps are not supported")
        tensor = value.type.tensor_type
        if tensor.elem_type not in onnx.TensorProto.DataType.values() or not tensor.elem_type:
            raise ModelError(f"{where} has no data type", hint=EXPORT_AGAIN)
        if not tensor.HasField("shape"):
            raise ModelError(
                f"{where} has no shape, not even a number of dims",
                hint="export it with a shape; dims of unknown size may have a name",
            )
        if tensor.elem_type in NO_NUMBERS:
            what, hint = NO_NUMBERS[tensor.elem_type]
            found = UnsupportedOp("input", "", 0, value.name, f"{what} are not supported")
            raise UnsupportedError([found], hint=hint)
        negative = [dim.dim_value for dim in tensor.shape.dim if dim.dim_value < 0]
        if negative:
            raise ModelError(
                f"{where} has the negative dim {negative[0]}",
                hint="name the dim (dim_param) if its size is not known",
            )


def _check_graph(
    graph: GraphProto, outer: set[str], name: str, depth: int = 0, loops: int = 0
) -> None:
    """Single assignment, no missing values, no cycles; `outer` are the names visible around it."""
    if depth > MAX_DEPTH:
        raise ModelError(f"'{name}' nests graphs more than {MAX_DEPTH} deep", hint=EXPORT_AGAIN)
    if loops > MAX_LOOPS:
        raise ModelError(f"'{name}' nests loops more than {MAX_LOOPS} deep", hint=EXPORT_AGAIN)
    own = [value.name for value in graph.input if value.name not in outer or depth]
    own += [tensor.name for tensor in graph.initializer if tensor.name not in own]
    _check_unique([*own, *(name for node in graph.node for name in node.output if name)], name)
    visible = outer.union(own)
    for node in graph.node:
        visible.update(node.output)
    for node in graph.node:
        for missing in sorted(graphs.reads(node) - visible):
            raise ModelError(
                f"'{name}': node '{graphs.label(node)}' ({node.op_type}) reads '{missing}', "
                "which no input, weight or node defines",
                hint=EXPORT_AGAIN,
            )
    for output in graph.output:
        if output.name not in visible:
            raise ModelError(
                f"'{name}': nothing computes the output '{output.name}'", hint=EXPORT_AGAIN
            )
    for node in graphs.in_order(graph.node, name):
        inside = loops + (graphs.core_op(node) in ("Loop", "Scan"))
        for body in graphs.subgraphs(node):
            _check_graph(body, visible, name, depth + 1, inside)


def _check_unique(names: Iterable[str], source: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ModelError(f"'{source}' defines '{name}' twice", hint=EXPORT_AGAIN)
        seen.add(name)


def _check_with_onnx(source: Source) -> None:
    """Attributes and numbers of inputs, node by node, against ONNX's own schemas."""
    context = onnx.checker.DEFAULT_CONTEXT.__class__()
    context.ir_version = max(source.model.ir_version, 3)
    context.opset_imports = graphs.opsets(source.model)
    local = {(function.domain, function.name) for function in source.model.functions}
    for node in graphs.all_nodes(source.model.graph):
        _check_tensors(node, source.name)
        own = (node.domain, node.op_type) in local
        if not own and onnx.defs.has(node.op_type, graphs.domain_of(node)):
            _check_node(_without_bodies(node), context, source.name)
            _check_variadic(node, context.opset_imports, source.name)
            _check_bodies(node, source.name)


def _check_tensors(node: NodeProto, name: str) -> None:
    """Tensors among the attributes are whole, and lie in no file: only a weight may."""
    for attribute in node.attribute:
        for tensor in [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]:
            where = f"'{name}': attribute '{attribute.name}' of node '{graphs.label(node)}'"
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ModelError(f"{where} lies in a file", hint="only weights of a graph may")
            tensors.to_array(tensor, where, None)


def _check_variadic(node: NodeProto, versions: Mapping[str, int], name: str) -> None:
    """Of any number of inputs none may have an empty name; onnx.checker looks at single ones."""
    domain = graphs.domain_of(node)
    try:
        inputs = onnx.defs.get_schema(node.op_type, versions[domain], domain).inputs
    except onnx.defs.SchemaError:
        return  # an operator of another version: reported as unsupported
    if not inputs or inputs[-1].option != onnx.defs.OpSchema.FormalParameterOption.Variadic:
        return
    if "" in node.input[len(inputs) - 1 :] and node.op_type not in BODIES:
        raise ModelError(
            f"'{name}': node '{graphs.label(node)}' ({node.op_type}) leaves out one of its inputs "
            f"'{inputs[-1].name}'",
            hint=EXPORT_AGAIN,
        )


def _without_bodies(node: NodeProto) -> NodeProto:
    """The node with empty bodies: the checker of one node would not see what they capture."""
    if not any(graphs.subgraphs(node)):
        return node
    empty = NodeProto()
    empty.CopyFrom(node)
    for body in graphs.subgraphs(empty):
        body.CopyFrom(GraphProto(name="body"))
    return empty


def _check_bodies(node: NodeProto, name: str) -> None:
    """The bodies of an If, Loop or Scan take and give as many values as the node."""
    attributes = graphs.attributes(node)
    for key in BODIES.get(graphs.core_op(node), ()):
        body = attributes[key]
        takes, gives = len(body.input), len(body.output)
        match node.op_type:
            case "If":
                fits = takes == 0 and gives == len(node.output)
            case "Loop":
                fits = takes == max(len(node.input), 2) and gives == len(node.output) + 1
            case _:
                fits = gives == len(node.output) and attributes["num_scan_inputs"] <= takes
        if not fits:
            raise ModelError(
                f"'{name}': node '{graphs.label(node)}' ({node.op_type}) has a {key} of {takes} "
                f"inputs and {gives} outputs, itself {len(node.input)} and {len(node.output)}",
                hint=EXPORT_AGAIN,
            )


def _check_node(node: NodeProto, context: onnx.checker.C.CheckerContext, name: str) -> None:
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            raise ModelError(
                f"'{name}': node '{graphs.label(node)}' ({node.op_type}) takes '{attribute.name}' "
                "from a function, and is in none",
                hint=EXPORT_AGAIN,
            )
    try:
        onnx.checker.check_node(node, context)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"'{name}': node '{graphs.label(node)}' ({node.op_type}) is not valid: {reason}",
            hint=EXPORT_AGAIN,
        ) from error
