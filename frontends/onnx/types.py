"""What an operator takes, by ONNX's schemas: element types, and which inputs it needs."""

from __future__ import annotations

from functools import cache

import onnx

from ..storage import STORED
from .builder import Call, DeclinedError
from .symbolic_node import TRACKED

KNOWN = frozenset([*TRACKED, "bfloat16", *STORED, ""])
"""Types that a module can hold; a value of no type is no tensor, or nothing is known of it."""
_NAMES = {"float32": "float", "float64": "double"}
_PLAIN = ("bool", "int", "uint", "float", "bfloat")


def check_types(call: Call) -> None:
    """Declines a node that gets a type which no version of its operator takes."""
    for name in [*call.node.input, *call.node.output]:
        dtype = call.builder.value(name).dtype if name else ""
        if dtype not in KNOWN:
            raise DeclinedError(f"'{name}' is of the type {dtype}, which there is no code for")
    if not onnx.defs.has(call.op, call.domain):
        return
    taken = _taken(call.op, call.domain)
    for index in range(len(call)):
        if not call.has(index) or not taken:
            continue
        dtype = call.dtype(index)
        allowed = taken[min(index, len(taken) - 1)]
        plain = dtype.startswith(_PLAIN) and dtype.isalnum()
        if plain and allowed and f"tensor({_NAMES.get(dtype, dtype)})" not in allowed:
            raise DeclinedError(f"input {index} is {dtype}, which the operator does not take")


@cache
def _taken(op: str, domain: str) -> tuple[frozenset[str], ...]:
    """Types of each input in any version; more inputs than listed are like the last."""
    found: list[set[str]] = []
    for schema in _versions(op, domain):
        for index, entry in enumerate(schema.inputs):
            if index == len(found):
                found.append(set())
            found[index] |= set(entry.types)
    return tuple(map(frozenset, found))


def _versions(op: str, domain: str) -> list[onnx.defs.OpSchema]:
    schema = onnx.defs.get_schema(op, domain)
    found = [schema]
    while schema.since_version > 1:
        try:
            schema = onnx.defs.get_schema(op, schema.since_version - 1, domain)
        except onnx.defs.SchemaError:
            break
        found.append(schema)
    return found
