"""What an operator takes, by ONNX's schemas: element types, and which inputs are of one type."""

from __future__ import annotations

from functools import cache

import onnx

from tvmext.errors import ModelError

from . import graph as graphs
from .symbolic_node import Node

_NAMES = {"float32": "float", "float64": "double"}
_PLAIN = ("bool", "int", "uint", "float", "bfloat")
Slot = tuple[frozenset[str], str]
"""The types of an input in any version, and its type parameter in the newest ("" without one)."""


def check_types(node: Node) -> None:
    """Raises ModelError for inputs of types that no version of the operator takes.

    Inputs of one type parameter, such as both choices of a Where, have one type.
    """
    dtypes = tuple(value.dtype if value is not None else "" for value in node.inputs)
    if reason := _misfit(node.op_type, graphs.domain_of(node.proto), dtypes):
        raise ModelError(f"{node.where}: {reason}", hint="check the model with onnx.checker")


@cache
def _misfit(op: str, domain: str, dtypes: tuple[str, ...]) -> str:
    slots = _slots(op, domain) if onnx.defs.has(op, domain) else ()
    first: dict[str, int] = {}
    for index, dtype in enumerate(dtypes):
        if not dtype or not slots:
            continue
        allowed, parameter = slots[min(index, len(slots) - 1)]
        plain = dtype.startswith(_PLAIN) and dtype.isalnum()
        if plain and allowed and f"tensor({_NAMES.get(dtype, dtype)})" not in allowed:
            return f"input {index} is {dtype}, which the operator does not take"
        other = first.setdefault(parameter, index) if parameter else index
        if dtypes[other] != dtype:
            return f"input {other} is {dtypes[other]} and input {index} {dtype}, not of one type"
    return ""


@cache
def _slots(op: str, domain: str) -> tuple[Slot, ...]:
    """Of each input; more inputs than listed are like the last."""
    versions = _versions(op, domain)
    found: list[set[str]] = []
    for schema in versions:
        for index, entry in enumerate(schema.inputs):
            if index == len(found):
                found.append(set())
            found[index] |= set(entry.types)
    names = [
        entry.type_str if entry.is_homogeneous and "(" not in entry.type_str else ""
        for entry in versions[0].inputs
    ]
    names += [""] * (len(found) - len(names))
    return tuple(zip(map(frozenset, found), names))


def _versions(op: str, domain: str) -> list[onnx.defs.OpSchema]:
    """The newest first."""
    schema = onnx.defs.get_schema(op, domain)
    found = [schema]
    while schema.since_version > 1:
        try:
            schema = onnx.defs.get_schema(op, schema.since_version - 1, domain)
        except onnx.defs.SchemaError:
            break
        found.append(schema)
    return found
