"""Candidates of a family and their description, and the rule that lets a cost model choose.

`choose` of a rule is the choice by its analytic price. A family with `Choices` also lists what else
it could decide, all of which computes the same, and describes each as numbers. `Priced` is the same
rule with the candidate that a model prices least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .cost.model import CostModel
from .cost.terms import Terms
from .rule import Declined, Kernel, Rule, Scheduled


class Choices(Protocol):
    """What one family may decide.

    `candidates` lists decisions, tens of them, the analytic choice first. `terms` describes
    decisions about a workload; the column "cycles" is their analytic price.
    """

    def candidates(self, workload: Any, arch: Any) -> Sequence[Any]: ...

    def terms(self, workload: Any, decisions: Sequence[Any], arch: Any) -> Terms: ...


class Priced:
    """`rule`, whose decisions a cost model takes among its `choices`."""

    def __init__(self, rule: Rule, choices: Choices, model: CostModel) -> None:
        self.name = rule.name
        self.takes_loaders = getattr(rule, "takes_loaders", True)
        self.rule = rule
        self.choices = choices
        self.model = model

    def match(self, kernel: Kernel) -> Any | Declined:
        return self.rule.match(kernel)

    def choose(self, workload: Any, arch: Any) -> Any:
        candidates = self.choices.candidates(workload, arch)
        if len(candidates) == 1:
            return candidates[0]
        return candidates[self.model.pick(self.choices.terms(workload, candidates, arch))]

    def apply(self, kernel: Kernel, workload: Any, decision: Any, arch: Any) -> Scheduled:
        return self.rule.apply(kernel, workload, decision, arch)
