"""The frame of a schedule rule: match, choose, apply.

A rule first looks (`match`), then decides (`choose`), then acts (`apply`); only the last touches a
schedule, and only on its own copy of the kernel. Decisions are frozen plain data: they can be
printed, stored in an artifact, compared and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from tvm.tirx import IndexMap, PrimFunc

Matrix: TypeAlias = tuple[tuple[float, ...], ...]
"""Rows of a matrix."""

OWN_ADDRESSES = "tvmext.own_addresses"
"""The attribute of a scheduled kernel that is as fast with the addresses of its loops as they are.

LLVM need not look for better ones, which can take longer than all else (build/kernels.py)."""


@dataclass(frozen=True)
class Kernel:
    """One TIR function to schedule, and what its callers promise about its arguments."""

    name: str
    func: PrimFunc
    constant_args: frozenset[int] = frozenset()
    """Parameters that are weights at every call: their layout may be changed at compile time."""


@dataclass(frozen=True)
class Declined:
    """A rule's "not mine", with the reason, which `explain` shows."""

    reason: str


@dataclass(frozen=True)
class Layout:
    """A new layout of a weight: element ``index`` of the old one goes to ``index_map(index)``.

    `shape` is the shape after the map; elements that no index reaches are zero. `products` are
    (dim, matrix): before the map every line of the weight along a dim is multiplied by its matrix.
    """

    index_map: IndexMap
    shape: tuple[int, ...]
    products: tuple[tuple[int, Matrix], ...] = ()


@dataclass(frozen=True)
class Scheduled:
    """The scheduled kernel, and the layouts in which it wants its weights, by parameter index."""

    func: PrimFunc
    layouts: Mapping[int, Layout] = field(default_factory=dict)


class Rule(Protocol):
    """One family of kernels on one kind of machine.

    `match` returns a frozen description of the kernel in the family's own terms, or `Declined`.
    `choose` returns a frozen dataclass of ints, strings and tuples; it may change speed, never
    results, and reads the hardware only through `arch`, the kind of machine that the rule is for.
    `apply` carries the decision out. A rule that has `tells_sizes` gains by no size that is not in
    its description: kernels of equal ones may become one.
    """

    name: str

    def match(self, kernel: Kernel) -> Any | Declined: ...

    def choose(self, workload: Any, arch: Any) -> Any: ...

    def apply(self, kernel: Kernel, workload: Any, decision: Any, arch: Any) -> Scheduled: ...
