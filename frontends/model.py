"""What a frontend hands on: a Relax module, its weights, and the signature in the user's names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .dims import Dim, Expr, Guard

if TYPE_CHECKING:
    import numpy as np
    from tvm import IRModule


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name in the model, NumPy dtype name, and shape.

    A dim of `shape` is an int or an `Expr` over the names in `Model.dims`.
    """

    name: str
    dtype: str
    shape: tuple[int | Expr, ...]
    stored: str = ""
    """The type that main has for it, where that is another (storage.py)."""

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Node:
    """A node of the user's model: its name, or what it is called by without one, and operator."""

    name: str
    op_type: str


@dataclass(frozen=True)
class Model:
    """A network as the passes take it.

    `mod["main"]` takes the inputs in the order of `inputs` (attribute ``num_input`` counts them),
    then the weights in the order of `params`; it returns a tensor if there is one output, else a
    tuple in the order of `outputs`. `params` are host arrays of the dtypes and shapes of main's
    parameters. Symbolic dims are int64 variables named as in `dims`. A call is valid if every guard
    holds.
    """

    mod: IRModule
    params: dict[str, np.ndarray]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: dict[str, Dim] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    nodes: dict[str, Node] = field(default_factory=dict)
    """By variable of main: the node of the user's model that computes it."""
    matched: dict[str, str] = field(default_factory=dict)
    """By variable of main whose sizes a run compares: for whom, as in "Reshape 'y'"."""
    source: str = ""
    """Where the model came from, for messages: a path, or a word such as "IRModule"."""
