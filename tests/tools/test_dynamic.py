"""The shapes of MikPoly's tables are drawn as they are said to be; sequences are told in parts."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm

from tools.bench import sequences
from tools.bench.dynamic import cases, command, kernels, row
from tvmext.measure.samples import Round, Sample
from tvmext.measure.timing import Call

FREE: dict[type, dict[str, Any]] = {cases.Gemm: {"m": 9}, cases.Conv: {"batch": 3, "side": 11}}
"""Other free sizes."""


def test_the_same_shapes_are_drawn_every_time() -> None:
    assert cases.gemms(60) == cases.gemms(60) != cases.gemms(60, seed=1)
    assert len({case.weight for case in cases.gemms(60)}) == 2
    for case in (*cases.gemms(400), *cases.convs(200)):
        assert case.flops <= 2 * cases.MOST_PRODUCTS
    layers = {(case.net, case.inputs, case.window) for case in cases.convs(len(cases.CONVS))}
    assert len(layers) >= 20


@pytest.mark.parametrize(
    "case",
    [
        cases.Gemm(5, 20, 7, True),
        cases.Gemm(5, 20, 7, False),
        cases.Conv("n", 8, 16, 3, 1, 1, 2, 6),
    ],
    ids=["weight", "any", "conv"],
)
def test_kernels_for_any_size_and_for_one_agree(case: cases.Case, tmp_path: Path) -> None:
    made = [kernels.dynamic(case), kernels.static(case)]
    library = kernels.libraries(made, tmp_path)
    results = []
    for kernel in made:
        out = tvm.runtime.empty(kernels.out_shape(case), "float32")
        kernel.call(library, list(kernels.inputs(case).values()), kernels.sizes(case), out)()
        results.append(out.numpy())
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)
    assert kernels.libraries(made, tmp_path).keys() == library.keys()


def test_candidates_are_kernels_for_any_size_with_one_variant_each(tmp_path: Path) -> None:
    case = cases.Gemm(5, 20, 7, False)
    every = {(k.decision.tile, k.decision.rhs): k for k in kernels.candidates(case)}
    assert len(every) == len({kernel.name for kernel in every.values()}) > 20
    assert not any(kernel.decision.others for kernel in every.values())
    ours = kernels.dynamic(case)
    kept = [(one.tile, one.rhs) for one in (ours.decision, *ours.decision.others) if not one.up_to]
    assert len(kept) > 1
    made = [ours, *(every[one] for one in kept[-2:])]
    library = kernels.libraries(made, tmp_path)
    for other in (case, cases.Gemm(23, 67, 41, False)):
        x, w = kernels.inputs(other).values()
        for kernel in made:
            out = tvm.runtime.empty(kernels.out_shape(other), "float32")
            kernel.call(library, [x, w], kernels.sizes(other), out)()
            np.testing.assert_allclose(out.numpy(), x @ w, rtol=1e-4, atol=1e-5)


def test_layers_and_weights_have_the_candidates_of_their_rule() -> None:
    for case in (cases.Gemm(5, 64, 128, True), cases.Conv("n", 8, 16, 3, 1, 1, 2, 6)):
        found = kernels.candidates(case)
        assert found is kernels.candidates(replace(case, **FREE[type(case)]))
        assert kernels.dynamic(case).name in {kernel.name for kernel in found}
        assert len({kernel.name for kernel in found}) > 1
        assert all(kernel.dims for kernel in found)


@pytest.mark.parametrize(("slower", "share"), [(2.0, 0.5), (0.5, 1.0)])
def test_the_oracle_is_the_fastest_candidate(
    slower: float, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases.Gemm(5, 20, 7, False)
    every = kernels.candidates(case)[:3]
    monkeypatch.setattr(kernels, "candidates", lambda _case: every)

    def turns(calls: Mapping[str, Call]) -> list[Round]:
        assert sum(name.startswith(row.BEST) for name in calls) == row.FINALISTS
        return [{name: Sample(1.0 if name == "best1" else slower, 1.0) for name in calls}] * 10

    request = {"dynamic": asdict(case), "folder": str(tmp_path), "oracle": True}
    found = row.dynamic_row(request, [], 1, turns)
    assert found["oracle"] == pytest.approx(share)
    assert found["decisions"][row.BEST] in [str(kernel.decision) for kernel in every]
    assert "oracle" not in row.dynamic_row(request | {"oracle": False}, [], 1, even)


def even(calls: Mapping[str, Call]) -> list[Round]:
    return [{name: Sample(1.0, 1.0) for name in calls}] * 10


def test_what_was_disturbed_has_the_ratio_of_minima() -> None:
    sides = {name: {"min_us": us} for name, us in (("dynamic", 2.0), ("static", 3.0))}
    told = {"case": "any/1x1x1", "family": "any", "sides": sides}
    text = command.tables([told | {"ratios": {"static": {"noisy": "busy"}}}])
    assert "~1.50" in text
    assert "1.500" in text


def test_sequences_are_told_in_quarters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"past": n, "tvmext": 0.001, "onnxruntime": 0.002} for n in range(8)]
    args = Namespace(network="n", threads=1, json=tmp_path / "out.json")
    sequences._tell(args, rows, "decode", "past")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith("2.00 |")]
    assert len(lines) == 5
    assert sequences.lengths(150, 0) == sequences.lengths(150, 0)
    assert all(5 <= length <= 500 for length in sequences.lengths(150, 0))
