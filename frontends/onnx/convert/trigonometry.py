"""Inverse functions of angles and of hyperbolas: LLVM has no form of them for float16."""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax

from ..builder import Call, Converter, Result


def _by_float32(build: Callable[[relax.Expr], relax.Expr]) -> Converter:
    def convert(call: Call) -> Result:
        if call.dtype(0) != "float16":
            return build(call.tensor(0))
        wide = call.emit(relax.op.astype(call.tensor(0), "float32"))
        return relax.op.astype(call.emit(build(wide)), "float16")

    return convert


CONVERTERS: dict[str, Converter] = {
    "Acos": _by_float32(relax.op.acos),
    "Acosh": _by_float32(relax.op.acosh),
    "Asin": _by_float32(relax.op.asin),
    "Asinh": _by_float32(relax.op.asinh),
    "Atan": _by_float32(relax.op.atan),
}
