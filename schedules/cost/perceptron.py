"""Multilayer perceptrons as arrays, evaluated by NumPy.

    y = min(max((features - mean) scale, -LIMIT), LIMIT)     y = max(y W + b, 0)  ...     y w + base

They are smooth where trees have steps: what depends on the ratio of two sizes takes trees many
splits, each learned from the few workloads that are on both of its sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LIMIT = 4.0
"""Standard deviations beyond which a feature counts as so far out."""

CHUNK = 512
"""Candidates at a time: their values stay in L2."""


@dataclass(frozen=True)
class Perceptrons:
    """Members of one shape; what they read, `used`, are places in FEATURES.

    `mean` and `scale` are [used], `weights` [members, inputs, outputs] for each layer, the last of
    one output, and `biases` [members, outputs]; `base` is added to what each member says.
    """

    used: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    base: float

    @property
    def members(self) -> int:
        return len(self.weights[0])

    def predict(self, values: np.ndarray) -> np.ndarray:
        """[members, candidates] for float32 [candidates, features]."""
        found = np.empty((self.members, len(values)))
        for first in range(0, len(values), CHUNK):
            inputs = scaled(values[first : first + CHUNK], self.used, self.mean, self.scale)
            for member in range(self.members):
                layers = [(w[member], b[member]) for w, b in zip(self.weights, self.biases)]
                found[member, first : first + CHUNK] = forward(inputs, layers)[-1][:, 0]
        return found + self.base


def scaled(values: np.ndarray, used: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What the first layer reads, float32 [candidates, used]."""
    found: np.ndarray = np.clip((values[:, used] - mean) * scale, -LIMIT, LIMIT)
    return found


def forward(inputs: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """The inputs, and the outputs of each layer of one member; those of the last may be below 0."""
    found = [inputs]
    for number, (weight, bias) in enumerate(layers):
        out = found[-1] @ weight
        out += bias
        found.append(out if number == len(layers) - 1 else np.maximum(out, 0, out=out))
    return found
