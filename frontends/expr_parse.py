"""Reads expressions from text: what `str` writes, and what exporters write as dim_param."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from tvmext.errors import DimError

from .expr import Expr, symbol
from .expr_atoms import ceildiv, floordiv, maximum, minimum

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], int | Expr]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable[..., int | Expr]] = {
    "floordiv": floordiv,
    "floormod": operator.mod,
    "ceildiv": ceildiv,
    "min": minimum,
    "max": maximum,
    "Min": minimum,  # as sympy prints them
    "Max": maximum,
    "Mod": operator.mod,
    "FloorDiv": floordiv,
}


def parse(text: str) -> int | Expr:
    """The size that `text` denotes, such as "past + seq" or "floordiv(height, 4)".

    Nothing is executed. Raises DimError for text that is not an integer expression.
    """
    try:
        return _size(ast.parse(text.strip(), mode="eval").body)
    except (
        SyntaxError,
        ValueError,
        TypeError,
        ZeroDivisionError,
        RecursionError,
        MemoryError,
    ) as error:
        raise DimError(
            f"'{text}' is not an expression over dims",
            hint="names, integers, + - * // %, min(a, b), max(a, b), floordiv(a, b)",
        ) from error


def _size(node: ast.expr) -> int | Expr:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_size(operand)
        case ast.BinOp(
            op=ast.Pow(),
            left=(ast.Name() | ast.Constant()) as base,  # a power of a power would grow for ever
            right=ast.Constant(value=int(power)),
        ) if 0 <= power <= 8:
            result: int | Expr = 1
            for _ in range(power):
                result = result * _size(base)
            return result
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_size(left), _size(right))
        case ast.Call(func=ast.Name(id="floor"), args=[ast.BinOp(op=ast.Div()) as quotient]):
            return floordiv(_size(quotient.left), _size(quotient.right))
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as args, keywords=[]) if (
            name in _FUNCTIONS
        ):
            return _FUNCTIONS[name](*map(_size, args))
    raise ValueError(ast.dump(node))
