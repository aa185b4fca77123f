"""Function bodies and decided branches put in place of the nodes that call them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper

from tvmext.errors import ModelError

from . import graph as graphs

LOCAL_DOMAIN = "tvmext.local"
MAX_NESTED = 8
MAX_DEPTH = 64
MAX_INLINED = 1 << 20
"""Nodes of a network with its functions inlined."""


def own_functions(model: ModelProto, source: str) -> ModelProto:
    """The bodies of the model's own functions in place of their calls."""
    from onnx import inliner

    _check_calls(model, source)
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # raised by the C++ inliner with no type of its own
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"'{source}': cannot inline the model's own functions: {reason}",
            hint="inline them with onnx.inliner.inline_local_functions before",
        ) from error


def schema_functions(model: ModelProto, keep: Iterable[str]) -> ModelProto:
    """Inline ONNX's own function bodies of operators not in `keep`.

    `keep` are operator names of the default domain that have a converter. Operators that have
    neither a converter nor a function body stay, for the caller to report.
    """
    from onnx import inliner

    kept = frozenset(keep)
    versions = graphs.opsets(model)
    called = [node for node in graphs.all_nodes(model.graph) if _has_body(node, kept)]
    if not called:
        return model
    for node in called:
        _write_defaults(node, versions[graphs.domain_of(node)])
    inlined = model
    with suppress(Exception):  # a body that does not fit its node: reported as unsupported
        inlined = _inline_by_type(model, kept)
        inlined = inliner.inline_selected_functions(
            inlined, [("", name) for name in kept], exclude=True, inline_schema_functions=True
        )
    return inlined if _is_complete(inlined.graph) else model


def _is_complete(graph: GraphProto) -> bool:
    """Whether all that nodes read is there, which a graph in a node may leave its body without."""
    visible = {value.name for value in (*graph.input, *graph.initializer)}
    visible.update(name for node in graph.node for name in node.output)
    return all(graphs.reads(node) <= visible for node in graph.node)


def _check_calls(model: ModelProto, source: str) -> None:
    """Functions may not call themselves, nor become more nodes than any network has."""
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[NodeProto], above: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in above:
                raise ModelError(
                    f"'{source}': the function '{node.op_type}' calls itself",
                    hint="a function of ONNX has no recursion; export the model again",
                )
            if len(above) > MAX_DEPTH:
                raise ModelError(
                    f"'{source}' nests functions more than {MAX_DEPTH} deep",
                    hint="inline them with onnx.inliner.inline_local_functions before",
                )
            if key in bodies and key not in sizes:
                sizes[key] = size(bodies[key], (*above, key))
            total += sizes.get(key, 1) + sum(size(g.node, above) for g in graphs.subgraphs(node))
        return total

    if size(model.graph.node, ()) > MAX_INLINED:
        raise ModelError(
            f"'{source}': its functions become more than {MAX_INLINED} nodes",
            hint="inline them with onnx.inliner.inline_local_functions before",
        )


def _inline_by_type(model: ModelProto, kept: frozenset[str]) -> ModelProto:
    """Inline the bodies that depend on the types of inputs: ONNX's inliner does not see that an
    optional input is left out. A body may hold such an operator itself."""
    from onnx import inliner

    for _ in range(MAX_NESTED):
        found = [
            n
            for n in model.graph.node
            if _has_body(n, kept) and _schema(n, model).has_context_dependent_function
        ]
        if not found:
            break
        types = _types(model)
        local = ModelProto()
        local.CopyFrom(model)
        made = 0
        for node in local.graph.node:
            body = _typed_body(node, local, types) if _has_body(node, kept) else None
            if body is not None:
                body.domain, body.name = LOCAL_DOMAIN, f"{node.op_type}_{made}"
                node.domain, node.op_type = body.domain, body.name
                local.functions.append(body)
                made += 1
        if not made:
            break
        local.opset_import.append(helper.make_opsetid(LOCAL_DOMAIN, 1))
        model = inliner.inline_local_functions(local)
        imports = [entry for entry in model.opset_import if entry.domain != LOCAL_DOMAIN]
        del model.opset_import[:]
        model.opset_import.extend(imports)
    return model


def _schema(node: NodeProto, model: ModelProto) -> onnx.defs.OpSchema:
    domain = graphs.domain_of(node)
    return onnx.defs.get_schema(node.op_type, graphs.opsets(model)[domain], domain)


def _types(model: ModelProto) -> dict[str, onnx.TypeProto]:
    with suppress(Exception):  # whatever ONNX's inference raises; the types given are left
        model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    known = {value.name: value.type for value in [*graph.value_info, *graph.input, *graph.output]}
    for tensor in graph.initializer:
        known[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return known


def _typed_body(
    node: NodeProto, model: ModelProto, types: dict[str, onnx.TypeProto]
) -> onnx.FunctionProto | None:
    """The body of the operator for its inputs; None if it does not depend on them or one has no
    known type."""
    schema = _schema(node, model)
    if not schema.has_context_dependent_function:
        return None
    if any(name and name not in types for name in node.input):
        return None
    given = [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input]
    _write_defaults(node, graphs.opsets(model)[graphs.domain_of(node)])
    version = max(
        v
        for v in schema.context_dependent_function_opset_versions
        if v <= graphs.opsets(model)[graphs.domain_of(node)]
    )
    text = schema.get_context_dependent_function_with_opset_version(
        version, node.SerializeToString(), given
    )
    body = onnx.FunctionProto.FromString(text)
    for entry in body.opset_import:
        number = graphs.opsets(model).get(entry.domain, entry.version)
        if _means_the_same(body, entry.domain, entry.version, number):
            entry.version = number  # the inliner leaves calls alone whose version is another
    return body


def _means_the_same(body: onnx.FunctionProto, domain: str, one: int, other: int) -> bool:
    """Whether the operators of a body take the same in two versions of their domain."""
    names = {node.op_type for node in body.node if graphs.domain_of(node) == domain}
    both = [[onnx.defs.get_schema(name, v, domain) for name in names] for v in (one, other)]
    return all(
        len(a.inputs) == len(b.inputs) and a.attributes.keys() == b.attributes.keys()
        for a, b in zip(*both)
    )


def _has_body(node: NodeProto, kept: frozenset[str]) -> bool:
    domain = graphs.domain_of(node)
    if (not domain and node.op_type in kept) or not onnx.defs.has(node.op_type, domain):
        return False
    schema = onnx.defs.get_schema(node.op_type, domain)
    return schema.has_function or schema.has_context_dependent_function


def _write_defaults(node: NodeProto, version: int) -> None:
    """Give the node its default attributes, which the inliner does not put into the body."""
    given = {attribute.name for attribute in node.attribute}
    schema = onnx.defs.get_schema(node.op_type, version, graphs.domain_of(node))
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def branch(node: NodeProto, taken: bool) -> list[NodeProto]:
    """Nodes that compute what the If `node` computes when its condition is `taken`."""
    chosen: GraphProto = graphs.attributes(node)["then_branch" if taken else "else_branch"]
    return body(chosen, next(filter(None, node.output), node.name), (), node.output)


def body(
    graph: GraphProto, prefix: str, inputs: Sequence[str], outputs: Sequence[str]
) -> list[NodeProto]:
    """The nodes of a graph with these inputs, and results under these names.

    Names of its own get the prefix, so that they stay unique; initializers become Constants.
    """
    own = {tensor.name for tensor in graph.initializer}
    own.update(name for inner in graph.node for name in inner.output if name)
    names = {name: f"{prefix}/{name}" for name in own}
    names.update(zip((value.name for value in graph.input), inputs))
    renamed = GraphProto()
    renamed.CopyFrom(graph)
    _rename(renamed, names)
    for node in renamed.node:
        node.name = f"{prefix}/{node.name}" if node.name else ""
    constants = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in renamed.initializer
    ]
    links = [
        helper.make_node("Identity", [inner.name], [outer])
        for inner, outer in zip(renamed.output, outputs)
        if outer
    ]
    return [*constants, *renamed.node, *links]


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for body in graphs.subgraphs(node):
            hidden = {value.name for value in body.input}
            _rename(body, {old: new for old, new in names.items() if old not in hidden})
    for item in [*graph.initializer, *graph.output]:
        item.name = names.get(item.name, item.name)
