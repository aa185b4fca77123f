"""Function bodies and decided branches put in place of the nodes that call them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper

from tvmext.errors import ModelError

from . import graph as graphs


def inline_functions(model: ModelProto, keep: Iterable[str], source: str) -> ModelProto:
    """Inline model-local functions, and ONNX's own function bodies of operators not in `keep`.

    `keep` are operator names of the default domain that have a converter. Operators that have
    neither a converter nor a function body stay, for the caller to report.
    """
    from onnx import inliner

    kept = frozenset(keep)
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # raised by the C++ inliner with no type of its own
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"'{source}': cannot inline the model's own functions: {reason}",
                hint="inline them with onnx.inliner.inline_local_functions before",
            ) from error
    versions = graphs.opsets(model)
    called = [node for node in graphs.all_nodes(model.graph) if _has_body(node, kept)]
    if not called:
        return model
    for node in called:
        _write_defaults(node, versions[graphs.domain_of(node)])
    try:
        return inliner.inline_selected_functions(
            model, [("", name) for name in kept], exclude=True, inline_schema_functions=True
        )
    except Exception:  # a body that needs types the inliner does not have: reported as unsupported
        return model


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


def branch(node: NodeProto, taken: bool) -> tuple[list[NodeProto], GraphProto]:
    """Nodes that compute what the If `node` computes when its condition is `taken`.

    Names inside the branch get the prefix of the If's label, so that they stay unique. The second
    value is the renamed branch, for its initializers.
    """
    attributes = graphs.attributes(node)
    body: GraphProto = attributes["then_branch" if taken else "else_branch"]
    own = {tensor.name for tensor in body.initializer}
    own.update(name for inner in body.node for name in inner.output if name)
    names = {name: f"{graphs.label(node)}/{name}" for name in own}
    renamed = GraphProto()
    renamed.CopyFrom(body)
    _rename(renamed, names)
    links = [
        helper.make_node("Identity", [inner.name], [outer])
        for inner, outer in zip(renamed.output, node.output)
        if outer
    ]
    return [*renamed.node, *links], renamed


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for body in graphs.subgraphs(node):
            hidden = {value.name for value in body.input}
            _rename(body, {old: new for old, new in names.items() if old not in hidden})
    for item in [*graph.initializer, *graph.output]:
        item.name = names.get(item.name, item.name)
