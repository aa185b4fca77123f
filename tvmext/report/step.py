"""One call of a main function as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

KERNEL, VIEW, OPERATOR = "kernel", "view", "operator"


@dataclass
class Step:
    """One call of main.

    `what` is an operator or a kernel. `places` are those of its results in the model as it was
    imported (passes/names.py), `reads` the steps whose results it reads, with the place of each
    result that has one, and `inputs` those of main. `outputs` are the positions of its results
    among main's. `var` is the name of its variable. `moves` tells that a kernel
    computes nothing.
    """

    what: str
    kind: str
    var: str
    shape: str
    places: set[int] = field(default_factory=set)
    reads: list[tuple[int, int | None]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    moves: bool = False
    read: int = 0
    written: int = 0

    @property
    def bytes(self) -> int:
        """What it reads and writes."""
        return self.read + self.written
