"""How to train."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How to train: `members` of so many trees each, and so many perceptrons."""

    members: int = 1
    trees: int = 150
    depth: int = 7
    rate: float = 0.08
    seed: int = 0
    monotone: bool = True
    lightest: float = 1.0
    """The least weight of a leaf."""
    perceptrons: int = 3
    hidden: tuple[int, ...] = (256, 64)
    """Outputs of the layers but the last."""
    rounds: int = 100
    """How often a perceptron sees each workload."""
    decay: float = 3.0
    """The sum over steps of what they take off a weight, as a share of it."""
