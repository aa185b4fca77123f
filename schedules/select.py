"""Which rule schedules a kernel: the first of an ordered list that matches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from tvmext.arch import Arch, CpuArch
from tvmext.errors import InternalError

from .cpu.scalars import keep_scalars
from .rule import Declined, Kernel, Rule, Scheduled

Decide = Callable[[Rule, Kernel, Any, Arch], tuple[Any, str]]
"""decide(rule, kernel, workload, arch) is a decision of the rule, and why, if not by the rule."""

Price = Callable[[Rule, Kernel, Any, Any], float | None]
"""price(rule, kernel, workload, decision) is how many seconds it is predicted to take."""


def unpriced(_rule: Rule, _kernel: Kernel, _workload: Any, _decision: Any) -> None:
    """No price."""


def by_rule(rule: Rule, _kernel: Kernel, workload: Any, arch: Arch) -> tuple[Any, str]:
    """The decision of the rule itself."""
    return rule.choose(workload, arch), ""


@dataclass(frozen=True)
class Selection:
    """How one kernel was scheduled: by which rule, with which decision, and who declined before.

    `why` says where the decision comes from, if not from the rule; `seconds` is its price.
    """

    kernel: str
    rule: str
    workload: Any
    decision: Any
    declined: tuple[tuple[str, str], ...]
    why: str = ""
    seconds: float | None = None


def select(
    kernel: Kernel,
    arch: Arch,
    rules: Sequence[Rule],
    decide: Decide = by_rule,
    price: Price = unpriced,
) -> tuple[Scheduled, Selection]:
    """Schedule `kernel` by the first rule that matches it.

    The last rule of a complete list matches everything; that no rule matches is a defect.
    """
    declined: list[tuple[str, str]] = []
    for rule in rules:
        workload = rule.match(kernel)
        if isinstance(workload, Declined):
            declined.append((rule.name, workload.reason))
            continue
        decision, why = decide(rule, kernel, workload, arch)
        scheduled = rule.apply(kernel, workload, decision, arch)
        if isinstance(arch, CpuArch):
            scheduled = replace(scheduled, func=keep_scalars(scheduled.func))
        seconds = price(rule, kernel, workload, decision)
        return scheduled, Selection(
            kernel.name, rule.name, workload, decision, tuple(declined), why, seconds
        )
    reasons = "; ".join(f"{name}: {reason}" for name, reason in declined)
    raise InternalError(f"no schedule rule takes kernel '{kernel.name}' ({reasons})")


def manner(kernel: Kernel, arch: Arch, rules: Sequence[Rule]) -> str:
    """The rule that would schedule `kernel`, and how; "" if only the last one would.

    "conv", or "conv, words" where instructions add up several bytes at once (cpu/dots.py), or
    "conv, winograd": what reads or stores in another order may be a slower kind of kernel. Also ""
    for a rule that says, by `takes_loaders`, that its kernels read nothing but memory.
    """
    for rule in rules[:-1]:
        workload = rule.match(kernel)
        if not isinstance(workload, Declined):
            if not getattr(rule, "takes_loaders", True):
                return ""
            how = getattr(rule.choose(workload, arch), "manner", "")
            return f"{rule.name}, {how}" if how else rule.name
    return ""


def plain(decision: Any) -> Any:
    """A decision in terms of JSON: dataclasses become objects, whatever is not plain its text."""
    if is_dataclass(decision) and not isinstance(decision, type):
        return {name.name: plain(getattr(decision, name.name)) for name in fields(decision)}
    if isinstance(decision, list | tuple):
        return [plain(item) for item in decision]
    if decision is None or isinstance(decision, bool | int | float | str):
        return decision
    return str(decision)
