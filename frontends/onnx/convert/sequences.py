"""Operators on sequences that are left: of a length, or by a position, that only the run knows."""

from __future__ import annotations

from ..builder import Call, Converter, DeclinedError
from ..sequences import OPERATORS


def _declined(call: Call) -> None:
    if call.op == "SplitToSequence":
        raise DeclinedError("the number of parts is known only at run time, or above 1024")
    if call.op.startswith("Optional"):
        raise DeclinedError(
            f"whether '{call.node.input[0]}' holds something is not known, or it is empty"
        )
    raise DeclinedError(
        f"the length of the sequence '{call.node.input[0]}' or a position in it is known only at "
        "run time, or does not fit"
    )


CONVERTERS: dict[str, Converter] = dict.fromkeys(OPERATORS, _declined)
