"""Recurrent networks: all steps of a sequence, at the sizes of speech and tagging networks."""

from __future__ import annotations

from functools import partial

from .case import Case, Graph, node, random, weight

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# steps, batch, inputs, hidden, directions
SIZES = (
    (512, 1, 256, 256, 1),
    (512, 1, 128, 128, 2),
    (128, 1, 512, 512, 1),
    (512, 8, 256, 256, 1),
    (64, 32, 512, 512, 1),
    (512, 1, 100, 100, 1),
)


def cases() -> list[Case]:
    """Names are lstm/STEPSxBATCHxINPUTSxHIDDENxDIRECTIONS, gru and rnn likewise."""
    return [_case(op, *size) for op in GATES for size in SIZES]


def _case(op: str, steps: int, batch: int, inputs: int, hidden: int, directions: int) -> Case:
    width = GATES[op] * hidden
    flops = 2.0 * steps * batch * width * (inputs + hidden) * directions
    name = f"{op.lower()}/{steps}x{batch}x{inputs}x{hidden}x{directions}"
    return Case(name, partial(_graph, op, steps, batch, inputs, hidden, directions), flops)


def _graph(op: str, steps: int, batch: int, inputs: int, hidden: int, directions: int) -> Graph:
    width = GATES[op] * hidden
    direction = "bidirectional" if directions == 2 else "forward"
    return Graph(
        [node(op, "x w r b", "y", hidden_size=hidden, direction=direction)],
        {"x": random(steps, batch, inputs)},
        "y",
        {
            "w": weight(directions, width, inputs, fan_in=inputs),
            "r": weight(directions, width, hidden, fan_in=hidden, seed=2),
            "b": weight(directions, 2 * width, fan_in=hidden, seed=3),
        },
    )
