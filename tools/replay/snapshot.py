"""Generated code as data that two commits can be compared by.

Kernels are numbered in the order in which they come to be (``fused_conv2d3_relu``), so that one
more kernel renames all that follow. Here a kernel is called by its words and a digest of its code
and its decision: what is the same has the same name, wherever it stands.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from tvmext.artifact import read_metadata
from tvmext.build.dump import SUFFIXES

NUMBER = re.compile(r"\d+(?=_|$)")
FUNCTION = re.compile(r"^    @T\.prim_func.*?(?=^    @T\.prim_func|\Z)", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"^    def (\w+)\(", re.MULTILINE)


@dataclass(frozen=True)
class Kernel:
    """`text` is its TIR under its stable `name`; `decision` says how it was scheduled, as JSON."""

    name: str
    words: str
    text: str
    decision: str


@dataclass(frozen=True)
class Snapshot:
    """The kernels in the order of the code, each once, and the program that calls them."""

    kernels: tuple[Kernel, ...]
    program: str


def snapshot(tir: str, relax: str, decisions: Mapping[str, Any]) -> Snapshot:
    """From the text of the scheduled kernels, that of the program, and decisions by kernel."""
    found: dict[str, Kernel] = {}
    for match in FUNCTION.finditer(tir):
        text = match[0].rstrip()
        named = NAME.search(text)
        assert named, text[:200]
        found[named[1]] = _kernel(named[1], text, decisions.get(named[1], {}))
    return Snapshot(tuple(dict.fromkeys(found.values())), _renamed(relax, found))


def _kernel(name: str, text: str, decision: Mapping[str, Any]) -> Kernel:
    words = NUMBER.sub("", name)
    plain = re.sub(rf"\b{name}\b", words, text)
    made = {name: value for name, value in decision.items() if name != "seconds"}
    chosen = json.dumps(made, sort_keys=True, indent=1)
    digest = hashlib.sha256(f"{plain}\n{chosen}".encode()).hexdigest()[:8]
    return Kernel(f"{words}@{digest}", words, plain, chosen)


def _renamed(text: str, kernels: Mapping[str, Kernel]) -> str:
    def stable(match: re.Match[str]) -> str:
        return kernels[match[0]].name if match[0] in kernels else match[0]

    return re.sub(r"\w+", stable, text)


def read(prefix: Path, library: Path) -> Snapshot:
    """What a compilation with `dump_code` wrote."""
    texts = [Path(f"{prefix}{SUFFIXES[name]}").read_text() for name in ("tir", "relax")]
    return snapshot(*texts, read_metadata(library).decisions)


def differences(old: Snapshot, new: Snapshot, context: int = 2) -> Iterator[str]:
    """Lines that tell what differs; none if nothing does.

    Kernels that only one side has are compared with one of the same words on the other, in order.
    """
    gone = [k for k in old.kernels if k not in new.kernels]
    come = [k for k in new.kernels if k not in old.kernels]
    for kernel in list(gone):
        other = next((k for k in come if k.words == kernel.words), None)
        if other is None:
            continue
        gone.remove(kernel)
        come.remove(other)
        yield f"kernel {kernel.name} -> {other.name}"
        yield from _lines(kernel.decision, other.decision, "decision", context)
        yield from _lines(kernel.text, other.text, "code", context)
    yield from (f"kernel {kernel.name} is gone" for kernel in gone)
    yield from (f"kernel {kernel.name} is new: {kernel.decision}" for kernel in come)
    yield from _lines(old.program, new.program, "program", context)


def _lines(old: str, new: str, what: str, context: int) -> Iterator[str]:
    names = f"{what} before", f"{what} after"
    yield from unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="", n=context)


def decided(old: Snapshot, new: Snapshot) -> Counter[str]:
    """How many kernels each rule has more (or fewer) than before."""
    counts = [Counter(_rule(k.decision) for k in side.kernels) for side in (old, new)]
    rules = dict.fromkeys([*counts[0], *counts[1]])
    return Counter({r: counts[1][r] - counts[0][r] for r in rules if counts[0][r] != counts[1][r]})


def _rule(decision: str) -> str:
    return str(json.loads(decision).get("rule", ""))
