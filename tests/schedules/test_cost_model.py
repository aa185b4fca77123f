"""The option that names a cost model, from the command's options to the rules and the results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import tvmext
from tests.cli import networks
from tvmext.arch import FAMILIES, resolve
from tvmext.errors import OptionError
from tvmext.options import Options
from tvmext.schedules.choices import Priced
from tvmext.schedules.cost.model import Learned
from tvmext.schedules.cost.weights import SHIPPED
from tvmext.schedules.rules import rules_for

ARCH = FAMILIES["x86-64-v4"]


def test_analytic_rules_choose_for_themselves() -> None:
    assert not any(isinstance(rule, Priced) for rule in rules_for(ARCH, Options()))


@pytest.mark.parametrize("name", ["learned", str(SHIPPED / "cpu.json")])
def test_learned_weights_choose_for_the_families_that_list_candidates(name: str) -> None:
    rules = rules_for(ARCH, Options(cost_model=name))
    priced = {rule.name for rule in rules if isinstance(rule, Priced)}
    assert priced == {
        "gemm",
        "conv",
        "depthwise",
        "attention",
        "elementwise",
        "reduction",
        "normalization",
    }
    assert [rule.name for rule in rules] == [rule.name for rule in rules_for(ARCH, Options())]
    assert all(isinstance(r.model, Learned) for r in rules if isinstance(r, Priced))


def test_gpus_stay_analytic() -> None:
    arch = resolve("cuda -arch=sm_80")
    assert not any(isinstance(r, Priced) for r in rules_for(arch, Options(cost_model="learned")))


def test_a_file_that_is_no_model_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "weights.json").write_text("{}")
    with pytest.raises(OptionError, match="not a file of weights"):
        tvmext.compile(
            networks.linear(), options=Options(cost_model=str(tmp_path / "weights.json"))
        )


def test_results_are_the_same() -> None:
    model = networks.linear()
    x = np.random.default_rng(0).standard_normal((5, 4), np.float32)
    results = [
        tvmext.compile(model, options=Options(cost_model=name)).run({"x": x})
        for name in ("analytic", "learned")
    ]
    for one, other in zip(*(found.values() for found in results)):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_shipped_weights_are_of_the_data_set_beside_them() -> None:
    """So that they can be made again: tools.train fit."""
    origin = json.loads((SHIPPED / "cpu.json").read_text())["content"]["origin"]
    data = Path(__file__).parents[2] / "tools" / "collect" / "data" / "cpu.parquet"
    assert origin["data_sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()
    assert origin["settings"]["seed"] == 0
