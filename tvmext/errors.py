"""What can go wrong, as types: each knows its exit code, where it happened and what to try next.

| exit code | class | meaning |
|---|---|---|
| 1 | `CheckFailed` | a comparison with reference outputs failed |
| 2 | `UserError` and below | the model, an input or an option cannot be used as given |
| 3 | `UnsupportedError` | the model is valid, but an operator in it is not supported |
| 70 | `InternalError` | a defect of tvmext |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TvmextError(Exception):
    """Base of every error tvmext raises on purpose.

    `message` says what happened and where (file, node, input or dim); `hint`, if any, what to try.
    """

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  try: {self.hint}" if self.hint else self.message


class OptionWarning(UserWarning):
    """An option was accepted, and changes nothing."""


class CheckFailed(TvmextError):
    """Outputs differ from the reference by more than the tolerance."""

    exit_code = 1


class UserError(TvmextError):
    """Something the caller gave cannot be used; the base of the classes below."""

    exit_code = 2


class ModelError(UserError):
    """The model cannot be read or is not valid."""


class InputError(UserError):
    """An input of a run has the wrong name, dtype, rank or size."""


class DimError(UserError):
    """A dim is unknown, out of its range, or bound to a value that the model rules out."""


class OptionError(UserError):
    """An option has a value that it cannot have, or two options exclude each other."""


class ArtifactError(UserError):
    """A compiled library cannot be read, written or loaded here."""


class ToolchainError(UserError):
    """A linker, compiler or optional package that is needed is not installed."""


@dataclass(frozen=True)
class UnsupportedOp:
    """A node that cannot be compiled; `reason` is empty if the operator as a whole is unknown.

    With 0 for `opset` it is a value of the graph, named by `node`, and `op_type` its kind.
    """

    op_type: str
    domain: str
    opset: int
    node: str
    reason: str = ""

    def __str__(self) -> str:
        name = f"{self.domain}::{self.op_type}" if self.domain else self.op_type
        where = f"{name} (opset {self.opset}) at node '{self.node}'"
        if not self.opset:
            where = f"{name} '{self.node}'" if self.node else name
        return f"{where}: {self.reason}" if self.reason else where


class UnsupportedError(TvmextError):
    """Operators that tvmext cannot compile yet; `ops` lists them all."""

    exit_code = 3

    def __init__(self, ops: Sequence[UnsupportedOp], *, hint: str = "") -> None:
        self.ops = tuple(ops)
        what = "value" if all(op.node and not op.opset for op in self.ops) else "operator"
        are = "s are" if len(self.ops) > 1 else " is"
        lines = "".join(f"\n  {op}" for op in self.ops)
        super().__init__(f"{len(self.ops)} {what}{are} not supported:{lines}", hint=hint)


class InternalError(TvmextError):
    """A defect of tvmext or of a library below it, a crash of the code generator included."""

    exit_code = 70
