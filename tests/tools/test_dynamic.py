"""The shapes of MikPoly's tables are drawn as they are said to be; sequences are told in parts."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import tvm

from tools.bench import sequences
from tools.bench.dynamic import cases, command, kernels


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


def test_what_was_disturbed_has_the_ratio_of_minima() -> None:
    sides = {name: {"min_us": us} for name, us in (("dynamic", 2.0), ("static", 3.0))}
    row = {"case": "any/1x1x1", "family": "any", "sides": sides}
    text = command.tables([row | {"ratios": {"static": {"noisy": "busy"}}}])
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
