"""tvmext compiles trained networks to shared libraries that run fast on any input size.

    compiled = tvmext.compile("model.onnx")
    outputs = compiled.run({"x": array})
    compiled.save("model.so")
    tvmext.load("model.so").run({"x": array})

Nothing heavy is imported before one of these names is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import compile, explain, load, verify
    from .options import Options
    from .runtime import CompiledModel
    from .tuning import tune

__version__ = "0.1.0"

_HOMES = {
    "compile": ".api",
    "explain": ".api",
    "load": ".api",
    "verify": ".api",
    "CompiledModel": ".runtime",
    "Options": ".options",
    "tune": ".tuning",
}
__all__ = [
    "CompiledModel",
    "Options",
    "__version__",
    "compile",
    "errors",
    "explain",
    "load",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module(".errors", __name__)
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module 'tvmext' has no attribute '{name}'")
