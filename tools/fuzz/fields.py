"""Mutations of any protobuf message: they know its fields, and nothing of what they mean."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]

INTEGERS = (
    0, 1, -1, 2, 3, 7, 16, 64, 255, -128, 1 << 16, (1 << 31) - 1, -(1 << 31), 1 << 31, 1 << 32,
    1 << 40, (1 << 63) - 1, -(1 << 63),
)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, -1e38, float("inf"), float("nan"))
TEXTS = (
    "",
    " ",
    "x",
    "/",
    "..",
    "\0",
    "a" * 4096,
    "∂",
    "%s%n",
    "0",
    "-1",
    "NaN",
    "main",
    "ai.onnx",
)
Place = tuple[Message, Any]
_FLOATING = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_MESSAGE = FieldDescriptor.CPPTYPE_MESSAGE


def places(message: Message) -> Iterator[Place]:
    """Every field that is set, in the message and all messages inside it."""
    for field, value in message.ListFields():
        yield message, field
        if field.cpp_type == _MESSAGE:
            for inner in value if repeated(field) else [value]:
                yield from places(inner)


def repeated(field: Any) -> bool:
    return bool(field.is_repeated)


def drop(rng: random.Random, model: Message) -> str:
    """A field is gone, or one element of it."""
    message, field = rng.choice(list(places(model)))
    values = getattr(message, field.name)
    if repeated(field) and rng.random() < 0.8:
        del values[rng.randrange(len(values))]
    else:
        message.ClearField(field.name)
    return f"drop {field.name}"


def double(rng: random.Random, model: Message) -> str:
    """An element stands twice."""
    message, field = _some(rng, model, lambda at: repeated(at[1]))
    values = list(getattr(message, field.name))
    values.insert(rng.randrange(len(values) + 1), rng.choice(values))
    _assign(message, field, values)
    return f"double {field.name}"


def swap(rng: random.Random, model: Message) -> str:
    """Two elements change places."""
    several = lambda at: repeated(at[1]) and len(getattr(at[0], at[1].name)) > 1  # noqa: E731
    message, field = _some(rng, model, several)
    values = list(getattr(message, field.name))
    one, other = rng.sample(range(len(values)), 2)
    values[one], values[other] = values[other], values[one]
    _assign(message, field, values)
    return f"swap {field.name}"


def graft(rng: random.Random, model: Message) -> str:
    """A message is replaced by another of its kind."""
    found = [at for at in places(model) if at[1].cpp_type == _MESSAGE]
    message, field = rng.choice(found)
    donors = [at for at in found if at[1].message_type is field.message_type]
    giver, source = rng.choice(donors)
    taken = _one(rng, getattr(giver, source.name), source)
    copy = type(taken)()
    copy.CopyFrom(taken)
    _one(rng, getattr(message, field.name), field).CopyFrom(copy)
    return f"graft {source.name} on {field.name}"


def change(rng: random.Random, model: Message) -> str:
    """A number, a text or a byte string has another value."""
    message, field = _some(rng, model, lambda at: at[1].cpp_type != _MESSAGE)
    texts = [getattr(m, f.name) for m, f in places(model) if f.name in ("name", "op_type")]
    value = getattr(message, field.name)
    if repeated(field):
        at = rng.randrange(len(value))
        value[at] = _other(rng, field, value[at], texts)
    else:
        setattr(message, field.name, _other(rng, field, value, texts))
    return f"change {field.name}"


def add(rng: random.Random, model: Message) -> str:
    """A field is set that was not."""
    message, _ = rng.choice(list(places(model)))
    field = rng.choice(message.DESCRIPTOR.fields)
    if field.cpp_type == _MESSAGE:
        getattr(message, field.name).add() if repeated(field) else getattr(
            message, field.name
        ).SetInParent()
    elif repeated(field):
        getattr(message, field.name).append(_other(rng, field, field.default_value or b"", []))
    else:
        setattr(message, field.name, _other(rng, field, getattr(message, field.name), []))
    return f"add {field.name}"


def damage(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """The file itself: bits flipped, bytes lost, put in or repeated."""
    out, at = bytearray(data), rng.randrange(max(1, len(data)))
    length = rng.choice((1, 2, 8, 64))
    kind = rng.choice(("flip", "cut", "lose", "insert", "repeat"))
    match kind:
        case "flip":
            for _ in range(rng.choice((1, 1, 2, 8))):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        case "cut":
            del out[at:]
        case "lose":
            del out[at : at + length]
        case "insert":
            out[at:at] = rng.randbytes(length)
        case "repeat":
            out[at:at] = out[at : at + length] * rng.choice((1, 2, 100))
    return bytes(out), f"{kind} bytes"


def _some(rng: random.Random, model: Message, fits: Any) -> Place:
    return rng.choice([at for at in places(model) if fits(at)])


def _one(rng: random.Random, value: Any, field: Any) -> Any:
    return rng.choice(value) if repeated(field) else value


def _assign(message: Message, field: Any, values: list[Any]) -> None:
    copy = type(message)()
    getattr(copy, field.name).extend(values)
    message.ClearField(field.name)
    getattr(message, field.name).extend(getattr(copy, field.name))


def _other(rng: random.Random, field: Any, value: Any, texts: list[Any]) -> Any:
    if field.enum_type:
        return rng.choice([v.number for v in field.enum_type.values])
    if field.cpp_type in _FLOATING:
        return rng.choice(FLOATS)
    if field.type == FieldDescriptor.TYPE_STRING:
        named = [text for text in texts if isinstance(text, str)]
        return rng.choice(named) if named and rng.random() < 0.7 else rng.choice(TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        data = value or b"\0"
        return rng.choice((data[:-1], data + b"\0", b"", rng.randbytes(len(data)), data * 2))
    wide = field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
    low = 0 if "UINT" in _name(field) else -(1 << 63 if wide else 1 << 31)
    high = (1 << 63 if wide else 1 << 31) - 1
    near = (int(value or 0) + 1, int(value or 0) - 1)
    return rng.choice([n for n in (*INTEGERS, *near) if low <= n <= high])


def _name(field: Any) -> str:
    unsigned = (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
    return "UINT" if field.cpp_type in unsigned else "INT"
