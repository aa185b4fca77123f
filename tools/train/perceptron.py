"""Multilayer perceptrons, trained by NumPy: Adam with decay (Loshchilov and Hutter, 1711.05101).

A step sees some workloads, whole ones, for the loss is of pairs of their candidates (loss.py). The
rate falls to zero as a cosine. Without the decay they learn a few hundred workloads by heart.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import cos, pi

import numpy as np

from tvmext.schedules.cost.perceptron import Perceptrons, forward, scaled

from .data import Data
from .loss import Loss
from .settings import Settings

BATCH = 32
"""Workloads of a step."""

RATE = 2e-3
FIRST, SECOND = 0.9, 0.99
"""What is kept of the running means of gradients and of their squares."""

LEAST_DEVIATION = 1e-5
"""Below which a feature is a constant, and left out."""

GAIN = 10.0
"""Of gradients over those of a mean over candidates."""

Layers = list[tuple[np.ndarray, np.ndarray]]


def fit(data: Data, settings: Settings) -> Perceptrons:
    """The perceptrons of families that compete."""
    deviation = data.features.std(axis=0)
    used = np.flatnonzero(deviation > LEAST_DEVIATION)
    mean, scale = data.features[:, used].mean(axis=0), 1 / deviation[used]
    inputs = scaled(data.features, used, mean, scale)
    base = float(np.median(data.target))
    members = [
        _train(data, inputs, data.target - base, settings, member)
        for member in range(settings.perceptrons)
    ]
    weights, biases = (
        tuple(np.stack(same) for same in zip(*([layer[kind] for layer in one] for one in members)))
        for kind in (0, 1)
    )
    return Perceptrons(used, mean, scale, weights, biases, base)


def _train(
    data: Data, inputs: np.ndarray, target: np.ndarray, settings: Settings, member: int
) -> Layers:
    """One member, rounded to half precision, as weights are written."""
    rng = np.random.default_rng([settings.seed, member])
    sizes = (inputs.shape[1], *settings.hidden, 1)
    layers = [
        (rng.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32), np.zeros(b, np.float32))
        for a, b in pairwise(sizes)
    ]
    loss = Loss.of(data)
    parameters = [array for layer in layers for array in layer]
    means, squares = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    workloads = list(data.workloads())
    steps = settings.rounds * _batches(workloads)
    batches = _drawn(workloads, rng)
    for step in range(1, steps + 1):
        rows = next(batches)
        values = forward(inputs[rows], layers)
        slope, _ = loss.part(rows).gradients(values[-1][:, 0].astype(np.float64), target[rows])
        found = _back(layers, values, (slope * (GAIN / len(rows))).astype(np.float32))
        rate = RATE * (1 + cos(pi * step / steps)) / 2
        decay = settings.decay * rate / (RATE * steps / 2)
        for parameter, gradient, first, second in zip(parameters, found, means, squares):
            first += (1 - FIRST) * (gradient - first)
            second += (1 - SECOND) * (gradient**2 - second)
            if parameter.ndim == 2:
                parameter *= 1 - decay
            away = np.sqrt(second / (1 - SECOND**step)) + 1e-8
            parameter -= rate / (1 - FIRST**step) * first / away
    return [(_half(weight), _half(bias)) for weight, bias in layers]


def _batches(workloads: list[np.ndarray]) -> int:
    """Steps of a round."""
    return max(1, round(len(workloads) / BATCH))


def _drawn(workloads: list[np.ndarray], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of some workloads, again and again, all of them in every round."""
    while True:
        order = rng.permutation(len(workloads))
        for part in np.array_split(order, _batches(workloads)):
            yield np.concatenate([workloads[i] for i in part])


def _back(layers: Layers, values: list[np.ndarray], slope: np.ndarray) -> list[np.ndarray]:
    """Gradients of weights and biases, in order, from that of each prediction."""
    found: list[np.ndarray] = []
    behind = slope[:, None]
    for number in reversed(range(len(layers))):
        found = [values[number].T @ behind, behind.sum(axis=0), *found]
        if number:
            behind = (behind @ layers[number][0].T) * (values[number] > 0)
    return found


def _half(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)
