"""What `bench ops` measures: small ONNX models at the sizes that real networks have."""

from collections.abc import Sequence
from fnmatch import fnmatch

from . import attention, conv, decisions, gemm, lowprecision, others, recurrent
from .case import Case

__all__ = ["Case", "all_cases", "named", "select"]


def all_cases() -> list[Case]:
    """Every case, by family."""
    families = (gemm, conv, attention, lowprecision, recurrent, decisions, others)
    return [case for family in families for case in family.cases()]


def select(patterns: Sequence[str]) -> list[Case]:
    """The cases whose name matches one of the shell patterns; all of them for no pattern."""
    return [
        case
        for case in all_cases()
        if not patterns or any(fnmatch(case.name, pattern) for pattern in patterns)
    ]


def named(name: str) -> Case:
    """The case of that name; raises KeyError."""
    return {case.name: case for case in all_cases()}[name]
