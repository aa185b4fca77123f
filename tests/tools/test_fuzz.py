"""The fuzzer: mutants of small models are compiled or refused; each kind of finding is one."""

from __future__ import annotations

import os
import random

import pytest
from onnx import ModelProto

from tools.fuzz import check, corpus
from tools.fuzz.__main__ import search
from tools.fuzz.mutants import Mutant, _mutate


def drawn(count: int, seed: int) -> list[Mutant]:
    rng, entries = random.Random(seed), corpus.small()
    return [Mutant(rng.choice(entries), number, seed) for number in range(count)]


def test_mutants_are_compiled_or_refused() -> None:
    results: list[check.Result] = []
    search(drawn(200, 7), 60.0, 1, results.append)
    assert len(results) == 200
    assert not [result for result in results if result.finding]
    assert {"compiled", "refused"} <= {result.status for result in results}


def test_a_mutant_is_the_same_every_time() -> None:
    for mutant in drawn(20, 3):
        assert mutant.make() == mutant.make()
    assert len({mutant.make()[0] for mutant in drawn(20, 3)}) > 15


def test_a_model_nested_deeper_than_protobuf_reads() -> None:
    model = ModelProto()
    graph = model.graph
    for _ in range(120):
        graph = graph.node.add().attribute.add().g
    assert any(_mutate(random.Random(seed), model) != "nothing" for seed in range(30))


def hang() -> None:
    while True:
        pass


FAULTS = {
    "crash": lambda: os._exit(3),
    "timeout": hang,
    "exception": lambda: {}["key"],
    "memory": lambda: bytearray(1 << 28),
    "outside": lambda: open("../outside.txt", "w").close(),
}


@pytest.mark.parametrize("status", FAULTS)
def test_a_fault_is_a_finding(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.api, "compile_here", lambda *_: FAULTS[status]())
    monkeypatch.setattr(check, "MEMORY", 1 << 26)
    entry = corpus.small()[0]
    results: list[check.Result] = []
    search([Mutant(entry, 0, 0)], 1.0 if status == "timeout" else 60.0, 1, results.append)
    assert [result.status for result in results] == [status]
    assert results[0].finding
