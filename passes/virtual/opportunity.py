"""The opportunity graph: which tensors need not exist, and who would read through their maps.

A node is one call in the order in which calls run, and the tensor that it writes. A *movable*
node only moves data: its tensor is either written, or *virtual*, and then all who read it read what
it is made of. After VTC (arXiv 2604.09558, section 5), on kernels: an edge there is a kernel that
reads a movable tensor here. A kernel reads any of its movable tensors through their maps, so edges
conflict only where no schedule rule takes them together; the price says so.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Node:
    """A call: the nodes that it reads, views seen through, and the bytes that it writes.

    The tensor of a `lasting` node is read by others than the nodes: it is there until the end.
    """

    reads: tuple[int, ...]
    bytes: int
    movable: bool = False
    lasting: bool = False


@dataclass(frozen=True)
class Graph:
    """The nodes in the order in which they run; they are known by their places."""

    nodes: tuple[Node, ...]

    @cached_property
    def movable(self) -> tuple[int, ...]:
        return tuple(k for k, node in enumerate(self.nodes) if node.movable)

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, those that read it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for place, node in enumerate(self.nodes):
            for source in dict.fromkeys(node.reads):
                found[source].append(place)
        return tuple(map(tuple, found))

    @cached_property
    def above(self) -> tuple[frozenset[int], ...]:
        """For each node, the movable ones that it may read through, one over another."""
        found: list[frozenset[int]] = []
        for node in self.nodes:
            own = (k for k in node.reads if self.nodes[k].movable)
            found.append(frozenset().union(*({k} | found[k] for k in own)))
        return tuple(found)

    def taken(self, place: int, virtual: Set[int]) -> frozenset[int]:
        """The virtual tensors that a node reads through, directly or one over another."""
        found: set[int] = set()
        todo = [place]
        while todo:
            new = {k for k in self.nodes[todo.pop()].reads if k in virtual} - found
            found |= new
            todo += new
        return frozenset(found)

    def final_readers(self, place: int, virtual: Set[int]) -> tuple[int, ...]:
        """The nodes that read a node's tensor, through virtual ones if need be."""
        found: dict[int, None] = {}
        for reader in self.readers[place]:
            through = self.final_readers(reader, virtual) if reader in virtual else (reader,)
            found |= dict.fromkeys(through)
        return tuple(found)

    @cached_property
    def components(self) -> tuple[frozenset[int], ...]:
        """The movable nodes in groups: choices in one have no influence on prices in another."""
        group = {place: place for place in self.movable}

        def root(place: int) -> int:
            while group[place] != place:
                place = group[place]
            return place

        for place, above in enumerate(self.above):
            together = sorted(above | {place} if self.nodes[place].movable else above)
            for one in together[1:]:
                group[root(one)] = root(together[0])
        found: dict[int, set[int]] = {}
        for place in self.movable:
            found.setdefault(root(place), set()).add(place)
        return tuple(map(frozenset, found.values()))

    def kernels(self, component: Set[int]) -> tuple[int, ...]:
        """The nodes whose prices depend on the choices in a component: those and their readers."""
        readers = {place for one in component for place in self.readers[one]}
        return tuple(sorted(readers | component))

    def peak(self, virtual: Set[int]) -> int:
        """The bytes of all tensors that exist at once, at most.

        A tensor exists from the node that writes it to the last that reads it, through virtual
        tensors if need be: they make their sources live longer.
        """
        end = len(self.nodes)
        last = [end if node.lasting else place for place, node in enumerate(self.nodes)]
        change = [0] * (end + 2)
        for place in reversed(range(end)):
            for reader in self.readers[place]:
                last[place] = max(last[place], last[reader] if reader in virtual else reader)
            if place not in virtual:
                change[place] += self.nodes[place].bytes
                change[last[place] + 1] -= self.nodes[place].bytes
        live = most = 0
        for step in change:
            live += step
            most = max(most, live)
        return most

    def written(self, virtual: Set[int]) -> int:
        """The bytes that movable nodes write."""
        return sum(self.nodes[k].bytes for k in self.movable if k not in virtual)
