"""Passes of a pipeline by name, and what has to hold for a module between any two of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import tvm
from tvm import relax
from tvm.s_tir.analysis import verify_well_formed

from tvmext.errors import CheckFailed, OptionError


def chosen(
    phases: Mapping[str, Sequence[tvm.transform.Pass]], names: Iterable[str]
) -> list[tvm.transform.Pass]:
    """The passes that `names` name, in their order: each a phase, or a pass of one.

    "FuseTIR" is also "fuse-tir". A pass that is run more than once is taken where it comes first.
    Raises OptionError for a name that is neither.
    """
    known: dict[str, list[tvm.transform.Pass]] = {}
    for passes in phases.values():
        for each in passes:
            known.setdefault(_spelled(each.info.name), [each])
    known |= {_spelled(name): list(passes) for name, passes in phases.items()}
    found: list[tvm.transform.Pass] = []
    for name in names:
        if _spelled(name) not in known:
            raise OptionError(
                f"no pass or phase is named '{name}'",
                hint=f"tvmext opt --list-passes; phases are {', '.join(phases)}",
            )
        found += known[_spelled(name)]
    return found


def _spelled(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()


def check_well_formed(mod: tvm.IRModule, name: str) -> None:
    """Raises CheckFailed if `mod` is not a well-formed module, in Relax or in TIR, after a pass."""
    try:
        relax.analysis.well_formed(mod)
        verify_well_formed(mod)
    except Exception as error:  # TVM raises a different class for each rule
        reason = str(error).strip().splitlines()[-1]
        raise CheckFailed(
            f"after {name} the module is not well-formed: {reason}",
            hint=f"--print-after {name} shows it; --no-check goes on without checks",
        ) from error
