"""What the tests take from hypothesis, for a host that lacks it: examples drawn at random.

`pack` puts this file on such a host as the package ``hypothesis``; nothing is shrunk there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

Draw = Callable[[random.Random], Any]
EXAMPLES = 20


def settings(max_examples: int = EXAMPLES, **_: Any) -> Callable[[Any], Any]:
    """How many examples a test gets; all else is hypothesis' own."""

    def mark(test: Any) -> Any:
        test.max_examples = max_examples
        return test

    return mark


def given(*draws: Draw, **named: Draw) -> Callable[[Any], Any]:
    """The test, called with examples; always the same ones."""

    def decorate(test: Any) -> Any:
        def run() -> None:
            source = random.Random(0)
            count = getattr(run, "max_examples", getattr(test, "max_examples", EXAMPLES))
            for _ in range(count):
                test(*[d(source) for d in draws], **{n: d(source) for n, d in named.items()})

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


def sampled_from(values: Sequence[Any]) -> Draw:
    return lambda source: source.choice(list(values))


def booleans() -> Draw:
    return sampled_from([False, True])


def integers(low: int, high: int) -> Draw:
    return lambda source: source.randint(low, high)


strategies = SimpleNamespace(sampled_from=sampled_from, booleans=booleans, integers=integers)
