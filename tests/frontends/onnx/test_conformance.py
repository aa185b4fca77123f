"""ONNX's own node tests: no model of one node may crash the import, whatever its operator."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest

from tvmext.errors import TvmextError
from tvmext.frontends import load

SHARE_IMPORTED = 0.55
"""Of the tests of tensors; the rest wants sizes that are data, or unknown operators."""
NOT_TENSORS = ("sequence", "optional", "string", "strnorm", "regex", "image_decoder", "ai_onnx_ml")


@pytest.fixture(scope="module")
def node_tests():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests are computed when they are listed
        from onnx.backend.test.loader import load_model_tests

        return [
            case
            for case in load_model_tests(kind="node")
            if case.model is not None and "_expanded" not in case.name
        ]


def outcome(case) -> str:
    """Whether the model was imported or refused; anything else fails the test."""
    try:
        load(case.model)
    except TvmextError as error:
        assert error.exit_code in (2, 3), f"{case.name}: {error}"
        return "not of tensors" if any(word in case.name for word in NOT_TENSORS) else "refused"
    return "imported"


def test_every_node_test_imports_or_is_refused(node_tests):
    found = Counter(map(outcome, node_tests))
    assert found["imported"] > SHARE_IMPORTED * (found["imported"] + found["refused"]), found
