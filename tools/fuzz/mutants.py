"""Entry of the corpus + seed -> the bytes of a mutant; the same ones every time."""

from __future__ import annotations

import random
from dataclasses import dataclass

from google.protobuf.message import Error, Message  # type: ignore[import-untyped]
from onnx import ModelProto

from . import fields, graphs
from .corpus import Entry

GENERIC = (fields.drop, fields.double, fields.swap, fields.graft, fields.change, fields.add)
TRIES = 20


@dataclass(frozen=True)
class Mutant:
    """Number `number` of the run with the seed `seed`."""

    entry: Entry
    number: int
    seed: int

    def make(self) -> tuple[bytes, str]:
        """The file, and what was done to it."""
        rng = random.Random(f"{self.seed}/{self.number}")
        model = ModelProto.FromString(self.entry.data)
        done = [_mutate(rng, model) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        try:
            data = model.SerializeToString()
        except Exception:  # nested deeper than protobuf writes
            data, done = self.entry.data, []
        if not done or rng.random() < 0.1:
            data, how = fields.damage(rng, data)
            done.append(how)
        return data, ", ".join(done)


def _mutate(rng: random.Random, model: Message) -> str:
    """One mutation that applies to the model: some need a weight, an attribute, a second node."""
    for _ in range(TRIES):
        kinds = GENERIC if rng.random() < 0.5 else graphs.ALL
        before = type(model)()
        before.CopyFrom(model)  # one that is nested deep can be written, and not read again
        try:
            return rng.choice(kinds)(rng, model)
        except (Error, IndexError, ValueError, TypeError):
            model.CopyFrom(before)
    return "nothing"
