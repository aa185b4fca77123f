"""What a night measures: the networks of the zoo and the operators of the bench, by importance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import zip_longest

from ..bench.cases import all_cases
from ..zoo.case import modes, networks

CORE = 2
"""So many operators of each family run every night, the rest as time allows."""

QUICK = (
    "zoo/vtc_shufflenet_unit static",
    "zoo/vtc_llama3_layer_decode_small static",
    "ops/gemm/64x64x64",
    "ops/softmax/12x128x128",
    "ops/norm/layer,197x384",
    "ops/depthwise/mobilenet_v2:144-144,k3,56x56",
    "ops/pool/average,64x112x112,k2,s2",
)

ORACLE = ("gemm/1x768x768", "gemm/128x768x768", "gemm/197x384x384", "gemm/13x129x65")
"""What the price picks there is compared with the best tile by measurement."""


@dataclass(frozen=True)
class Case:
    """A model to compile for a target. `part` is "zoo" or "ops"; `mode` "static" or "dynamic"."""

    part: str
    model: str
    mode: str = "static"
    target: str = "llvm"

    @property
    def name(self) -> str:
        """``zoo/unet.legacy.dyn dynamic`` or ``ops/gemm/64x64x64``; with the target if a GPU's."""
        mode = f" {self.mode}" if self.part == "zoo" else ""
        device = "" if self.target == "llvm" else f" on {self.target}"
        return f"{self.part}/{self.model}{mode}{device}"


def every_case(targets: Sequence[str] = ("llvm",)) -> list[Case]:
    """All cases, the most important first: operators and networks in turns. GPUs get the networks.

    A block that also exists small is left to `tools.zoo`: its weights take gigabytes.
    """
    names = networks()
    kept = [name for name in names if f"{name}_small" not in names]
    nets = [Case("zoo", name, mode) for name in kept for mode in modes(name)]
    seen: dict[str, int] = {}
    core, rest = [], []
    for case in all_cases():
        seen[case.family] = seen.get(case.family, 0) + 1
        (core if seen[case.family] <= CORE else rest).append(Case("ops", case.name))
    static = [net for net in nets if net.mode == "static"]
    dynamic = [net for net in nets if net.mode == "dynamic"]
    gpus = [Case("zoo", net.model, net.mode, t) for t in targets if t != "llvm" for net in static]
    turns = [each for pair in zip_longest(core, static) for each in pair if each]
    return [*turns, *gpus, *dynamic, *rest]


def chosen(patterns: Sequence[str], targets: Sequence[str], quick: bool) -> list[Case]:
    """The cases whose names match one of the shell patterns, all for none; or the quick ones."""
    found = every_case(targets)
    if quick:
        found = [case for case in found if case.name in QUICK]
    return [c for c in found if not patterns or any(fnmatch(c.name, each) for each in patterns)]


def in_turn(cases: Iterable[Case], last: Mapping[str, int]) -> list[Case]:
    """The cases that have waited longest first; `last` says in which run each was measured.

    Those measured in the same run stay as they are: what a night leaves out begins the next.
    """
    return sorted(cases, key=lambda case: last.get(case.name, 0))
