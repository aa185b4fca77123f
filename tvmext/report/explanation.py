"""What became of the movement operators of a network, as plain data that goes through JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .provenance import origins
from .regions import Region, regions_of
from .step import VIEW as VIEW_STEP

if TYPE_CHECKING:
    from tvmext.schedules.prices import KernelPrices

    from .trace import Network, Outcome

GONE, VIEW, READ, PLACED, KEPT = "gone", "view", "read", "placed", "kept"
FATES = {
    GONE: "nothing is left of it: it cancels with others, or nobody needs it",
    VIEW: "the same memory under another shape",
    READ: "its reader reads through the map",
    PLACED: "what makes its operand writes through the map",
    KEPT: "a kernel that only moves data",
}
"""What can become of a movement operator, from the best to the worst."""


@dataclass(frozen=True)
class Operator:
    """One movement operator: the node of the model it comes from, and what became of it.

    `kernels` are those that do its work now. `bytes` are what its movement kernels read and write,
    `stock_bytes` those of TVM's; a kernel of several operators counts for each with its share.
    """

    node: str
    op_type: str
    operator: str
    shape: str
    fate: str
    kernels: tuple[str, ...]
    detail: str
    stock_bytes: int
    bytes: int

    @property
    def bytes_saved(self) -> int:
        """What TVM's movement kernels read and write for it and ours do not."""
        return self.stock_bytes - self.bytes


@dataclass(frozen=True)
class LeftKernel:
    """A kernel that only moves data: what it stands for, reads and writes, and why it is left."""

    kernel: str
    nodes: tuple[str, ...]
    bytes: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Totals:
    """What one pipeline makes of the network. Bytes are read and written ones.

    `bytes_moved` are those of the movement kernels, `kernel_bytes` those of all. `planned_bytes`
    is the memory of all intermediate results, weights, inputs and outputs not counted.
    """

    movement_operators: int
    kernels: int
    movement_kernels_left: tuple[LeftKernel, ...]
    bytes_moved: int
    kernel_bytes: int
    planned_bytes: int


@dataclass(frozen=True)
class Explanation:
    """A whole network at the given sizes of its free dims."""

    model: str
    target: str
    sizes: Mapping[str, int]
    stock: Totals
    ours: Totals
    operators: tuple[Operator, ...]
    regions: tuple[Region, ...]
    prices: tuple[KernelPrices, ...] = ()

    @property
    def fates(self) -> dict[str, int]:
        """How many operators met each fate."""
        count = Counter(operator.fate for operator in self.operators)
        return {fate: count[fate] for fate in FATES}

    def to_json(self) -> dict[str, Any]:
        """Everything but the drawings, with the figures that issue readers ask for on top."""
        found = asdict(self)
        del found["regions"]
        for entry, operator in zip(found["operators"], self.operators):
            entry["bytes_saved"] = operator.bytes_saved
        return {
            "model": self.model,
            "target": self.target,
            "sizes": dict(self.sizes),
            "movement_operators": self.ours.movement_operators,
            "fates": self.fates,
            **{name: found[name] for name in ("stock", "ours", "operators", "prices")},
        }


def explain(
    model: str, target: str, sizes: Mapping[str, int], net: Network, stock: Outcome, ours: Outcome
) -> Explanation:
    """Puts together what is known of the network and of what two pipelines made of it."""
    sides = _Side(net, stock), _Side(net, ours)
    # What a kernel that computes nothing stands for computes nothing.
    movement = net.movement.union(*(side.origins[k] for side in sides for k in side.outcome.left))
    theirs, mine = sides
    saved = theirs.shares(movement), mine.shares(movement)
    operators = tuple(mine.operator(k, movement, *saved) for k in sorted(movement))
    return Explanation(
        model,
        target,
        dict(sizes),
        theirs.totals(len(movement)),
        mine.totals(len(movement)),
        operators,
        regions_of(net, movement, ours, mine.origins),
    )


class _Side:
    """A network and what one pipeline made of it."""

    def __init__(self, net: Network, outcome: Outcome) -> None:
        self.net = net
        self.outcome = outcome
        self.origins = [
            inside & net.movement if k in outcome.left and not self._is_exact(k) else inside
            for k, inside in enumerate(origins(net.steps, outcome.steps))
        ]

    def totals(self, movement: int) -> Totals:
        outcome = self.outcome
        left = tuple(
            LeftKernel(
                kernel.name,
                tuple(self._nodes(self.origins[k])) or kernel.nodes,
                outcome.steps[k].bytes,
                kernel.reason,
                kernel.detail,
            )
            for k, kernel in outcome.left.items()
        )
        return Totals(
            movement,
            outcome.kernels,
            left,
            outcome.bytes_moved,
            outcome.kernel_bytes,
            outcome.planned_bytes,
        )

    def _is_exact(self, k: int) -> bool:
        """Whether the network has both what step `k` computes and what it reads."""
        steps = self.outcome.steps
        return bool(steps[k].places) and all(steps[source].places for source, _ in steps[k].reads)

    def shares(self, movement: Iterable[int]) -> Counter[int]:
        """The bytes of the movement kernels, by operator."""
        shares: Counter[int] = Counter()
        for k in self.outcome.left:
            among = sorted(self.origins[k].intersection(movement))
            for position, operator in enumerate(among):
                share, rest = divmod(self.outcome.steps[k].bytes, len(among))
                shares[operator] += share + (position < rest)
        return shares

    def operator(
        self,
        number: int,
        movement: frozenset[int],
        stock_bytes: Mapping[int, int],
        our_bytes: Mapping[int, int],
    ) -> Operator:
        step, node = self.net.steps[number], self.net.node(number)
        steps = [k for k, stands_for in enumerate(self.origins) if number in stands_for]
        by_fate: dict[str, list[int]] = {}
        for k in steps:
            by_fate.setdefault(self._fate(number, k, movement), []).append(k)
        fate = next((fate for fate in reversed(FATES) if fate in by_fate), GONE)
        kernels = [self.outcome.steps[k].what for k in by_fate.get(fate, ())]
        details = [self.outcome.left[k].detail for k in steps if k in self.outcome.left]
        return Operator(
            node.name if node else "",
            node.op_type if node else "",
            step.what,
            step.shape,
            fate,
            tuple(dict.fromkeys(kernels)) if fate != VIEW else (),
            "; ".join(dict.fromkeys(details)),
            stock_bytes[number],
            our_bytes[number],
        )

    def _fate(self, number: int, k: int, movement: frozenset[int]) -> str:
        """What step `k` makes of an operator that it stands for."""
        if k in self.outcome.left:
            return KEPT
        if self.outcome.steps[k].kind == VIEW_STEP:
            return VIEW
        return READ if self._is_read(number, self.origins[k], movement) else PLACED

    def _is_read(self, number: int, inside: frozenset[int], movement: frozenset[int]) -> bool:
        """Whether an operator inside that computes reads, through others, the result."""
        waiting, seen = [number], {number}
        while waiting:
            at = waiting.pop()
            if at not in movement:
                return True
            for reader in self.net.readers[at] & inside - seen:
                seen.add(reader)
                waiting.append(reader)
        return False

    def _nodes(self, steps: Iterable[int]) -> Iterator[str]:
        for k in sorted(steps):
            node = self.net.node(k)
            yield node.name if node else self.net.steps[k].what
