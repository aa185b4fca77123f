"""Which operators of a network a step of its compiled form stands for.

A step that computes the value at place p and reads the values at places q stands for the operators
on the ways from q to p: those that p needs and that nothing else in the compiled form computes.
Where a kernel computes a value that the network does not have (a part of attention, say), it shares
what the next steps that do compute one stand for; views before and after it stand for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .step import VIEW, Step


def origins(network: Sequence[Step], compiled: Sequence[Step]) -> list[frozenset[int]]:
    """For each step of `compiled`, the steps of `network` that it stands for."""
    maker = {place: k for k, step in enumerate(network) for place in step.places}
    stored = {place for step in compiled for place in step.places}
    readers = readers_of(compiled)
    return [_origins(network, compiled, k, maker, stored, readers) for k in range(len(compiled))]


def _origins(
    network: Sequence[Step],
    compiled: Sequence[Step],
    number: int,
    maker: dict[int, int],
    stored: set[int],
    readers: Sequence[set[int]],
) -> frozenset[int]:
    step = compiled[number]
    if any(compiled[source].places & step.places for source, _ in step.reads):
        return frozenset()  # the same value in another shape
    if step.kind == VIEW and (not step.places or _after_nameless_kernel(compiled, number)):
        return frozenset()
    ends = step.places or _next_places(compiled, number, readers)
    found: set[int] = set()
    waiting = [place for place in ends if place in maker]
    while waiting:
        made_by = maker[waiting.pop()]
        if made_by not in found:
            found.add(made_by)
            read = (place for _, place in network[made_by].reads)
            waiting += [p for p in read if p is not None and p not in stored and p in maker]
    return frozenset(found)


def _after_nameless_kernel(compiled: Sequence[Step], number: int) -> bool:
    sources = [source for source, _ in compiled[number].reads if not compiled[source].places]
    return any(
        compiled[source].kind != VIEW or _after_nameless_kernel(compiled, source)
        for source in sources
    )


def _next_places(
    compiled: Sequence[Step], number: int, readers: Sequence[set[int]]
) -> Iterable[int]:
    """The places of the first values after a step that the network has."""
    places: set[int] = set()
    waiting, seen = [number], {number}
    while waiting:
        for reader in readers[waiting.pop()] - seen:
            seen.add(reader)
            if compiled[reader].places:
                places |= compiled[reader].places
            else:
                waiting.append(reader)
    return places


def readers_of(steps: Sequence[Step]) -> list[set[int]]:
    """For each step, those that read its result."""
    readers: list[set[int]] = [set() for _ in steps]
    for k, step in enumerate(steps):
        for source, _ in step.reads:
            readers[source].add(k)
    return readers
