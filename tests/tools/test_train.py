"""Training: the same again for a seed, the same as XGBoost says, and weights that are refused."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from tools.collect.journal import ONCE, SCHEMA, write
from tools.train import networks
from tools.train.__main__ import machines_held_out, on_each_machine, parse
from tools.train.data import Data, by_machine, folds, load
from tools.train.fit import booster, fit
from tools.train.judge import APART, judge, text
from tools.train.loss import Loss
from tools.train.perceptron import _back
from tools.train.report import report
from tools.train.settings import Settings
from tools.zoo import sides
from tvmext.errors import OptionError
from tvmext.schedules.cost import terms, weights
from tvmext.schedules.cost.features import NAMES, VERSION, features
from tvmext.schedules.cost.model import GROUPS, Analytic, Learned
from tvmext.schedules.cost.perceptron import LIMIT, forward
from tvmext.schedules.cost.terms import FAMILIES, FIELDS, Terms

SMALL = Settings(members=2, trees=30, depth=4, rate=0.3, perceptrons=2, hidden=(16,), rounds=200)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Measurements of a machine on which tall tiles are slow, which the analytic price denies."""
    rng = np.random.default_rng(0)
    rows = []
    for workload in range(60):
        size = {name: 2.0 ** rng.integers(5, 9) for name in ("rows", "cols", "depth")}
        for number, height in enumerate((2.0, 4.0, 6.0, 8.0)):
            own = {name: field.default for name, field in FIELDS.items()}
            own |= {**size, "tile_rows": height, "vectors": 2.0, "lanes": 16.0}
            own["cycles"] = size["rows"] * size["cols"] * size["depth"] / height
            seconds = own["cycles"] / 2.5e9 * np.exp(0.3 * height + 0.01 * rng.standard_normal())
            row = dict.fromkeys(SCHEMA.names, "") | own
            row |= {"key": f"{workload}-{number}", "workload": str(workload), "rule": "gemm"}
            row |= {"picked": height == 8, "seconds": seconds, "least": seconds, "spread": 0.0}
            row |= {"samples": 9, "noisy": False, "threads": 1, "features": terms.VERSION} | ONCE
            row |= {"arch": json.dumps({"family": f"machine {workload % 2}"})}
            rows.append(row)
    path = tmp_path_factory.mktemp("data") / "cpu.parquet"
    write(rows, path)
    return load(path)


@pytest.fixture(scope="module")
def model(data: Data) -> Learned:
    return fit(data, SMALL)


def test_it_learns_what_the_analytic_price_denies(data: Data) -> None:
    models = [(fit(data.where(seen), SMALL), held) for seen, held in folds(data, 3, 0)]
    found = judge(data, models)["all"]
    assert found.workloads == 60
    # Workloads at the edge of all sizes are outside of what the others are: those stay analytic.
    assert found.analytic < 0.65 and found.pick > 0.9
    assert found.top[0] > 0.9 and found.pairwise > 0.85 and found.far_pairs > 0.85
    assert "gemm" in text({"gemm": found})
    assert len(found.pairs) == len(APART) + 1 and all(0.8 < share <= 1 for share in found.pairs)
    assert found.told == found.pairwise and found.told_of == 1  # of one session each
    held = [(Analytic(), rows) for _, rows in folds(data, 3, 0)]
    assert judge(data, held)["all"].pick == pytest.approx(found.analytic)


def test_the_same_again(data: Data, model: Learned) -> None:
    again = fit(data, SMALL)
    for name in ("feature", "threshold", "leaf"):
        one, same = (getattr(found.forests[0], name) for found in (model, again))
        np.testing.assert_array_equal(one, same)
    for one, same in zip(model.perceptrons[0].weights, again.perceptrons[0].weights):
        np.testing.assert_array_equal(one, same)
    other = fit(data, replace(SMALL, seed=1))
    assert not np.array_equal(model.forests[0].leaf, other.forests[0].leaf)


def test_the_forest_predicts_what_xgboost_does(data: Data) -> None:
    one = replace(SMALL, members=1, trees=12)
    model = fit(data, one)
    order = np.random.default_rng(0).permutation(len(data.seconds))
    base = float(np.median(data.target))
    whole = booster(data, one, base, 0)
    matrix = xgb.DMatrix(data.features[order], feature_names=list(NAMES))
    (found,) = model.forests[0].predict(data.features[order])
    np.testing.assert_allclose(found, whole.predict(matrix) + base, rtol=1e-5, atol=1e-6)


def test_perceptrons_predict_what_their_formula_says(data: Data, model: Learned) -> None:
    found = model.perceptrons[0]
    values = data.features[:700].copy()
    values[0, found.used[0]] = 1e9  # far out: as far as the limit
    inputs = np.clip((values[:, found.used] - found.mean) * found.scale, -LIMIT, LIMIT)
    for member in range(SMALL.perceptrons):
        (first, last), (shift, end) = (
            [array[member].astype(np.float64) for array in arrays]
            for arrays in (found.weights, found.biases)
        )
        expected = np.maximum(inputs @ first + shift, 0) @ last + end
        said = found.predict(values)[member]
        np.testing.assert_allclose(said, expected[:, 0] + found.base, rtol=1e-4, atol=1e-5)
    halves = [one.predict(values).mean(axis=0) / 2 for one in (model.forests[0], found)]
    both = model.corrections(values, np.zeros(len(values), int))
    np.testing.assert_allclose(both, sum(halves), rtol=1e-12)


def test_gradients_of_layers() -> None:
    rng = np.random.default_rng(0)
    layers = [
        (rng.normal(size=size), rng.normal(size=size[1])) for size in ((5, 4), (4, 3), (3, 1))
    ]
    inputs, slope = rng.normal(size=(7, 5)), rng.normal(size=7)
    found = _back(layers, forward(inputs, layers), slope)
    parameters = [array for layer in layers for array in layer]
    assert [g.shape for g in found] == [p.shape for p in parameters]
    for parameter, gradient in zip(parameters, found):
        for at in np.ndindex(parameter.shape):
            sums, kept = [], parameter[at]
            for away in (1e-6, -1e-6):
                parameter[at] = kept + away
                sums.append(float(slope @ forward(inputs, layers)[-1][:, 0]))
            parameter[at] = kept
            assert gradient[at] == pytest.approx((sums[0] - sums[1]) / 2e-6, rel=1e-4, abs=1e-6)


def test_the_loss_of_some_workloads(data: Data) -> None:
    """Is that of a data set of these alone, whatever the order of the rows."""
    rows = np.concatenate([own[::-1] for own in list(data.workloads())[9:4:-1]])
    found, target = np.linspace(-1, 1, len(rows)), data.target[rows]
    order = np.argsort(rows)
    part = Loss.of(data).part(rows).gradients(found, target)
    alone = Loss.of(data.where(rows[order])).gradients(found[order], target[order])
    for one, other in zip(part, alone):
        np.testing.assert_allclose(one[order], other, rtol=1e-9, atol=1e-12)
    assert np.abs(part[0]).max() > 0.01


def test_a_convolution_keeps_its_method(data: Data) -> None:
    """The fastest candidate is taken, but not where it is of the other method than the rule's."""

    def pick(fastest: str) -> int:
        columns = {name: data.terms.column(name) for name in FIELDS}
        kinds = np.where(columns["tile_rows"] == 4, fastest, "conv")
        columns["family"] = np.array([float(FAMILIES.index(kind)) for kind in kinds])
        found = Terms(columns, len(kinds))
        found_values = features(found)
        every = np.full(len(kinds), FAMILIES.index("conv"))
        model = fit(replace(data, terms=found, features=found_values, family=every), SMALL)
        own = next(r for r in data.workloads() if model.knows(found_values[r], every[r]).all())
        order = [*own[data.picked[own]], *own[~data.picked[own]]]
        picked = model.pick(Terms({name: column[order] for name, column in columns.items()}, 4))
        return int(columns["tile_rows"][order[picked]])

    assert pick("conv") == 4
    assert pick("winograd") == 2


def test_what_kernels_alone_do_not_tell_stays_with_the_rule(data: Data, model: Learned) -> None:
    """Whether the next panel is fetched, and tiles of Winograd's method."""
    sure = replace(model, low=np.full_like(model.low, -1e9), high=np.full_like(model.high, 1e9))
    own = next(r for r in data.workloads() if model.knows(data.features[r], data.family[r]).all())
    order = [*own[data.picked[own]], *own[~data.picked[own]]]
    columns = {name: data.terms.column(name)[order] for name in FIELDS}
    best = sure.pick(Terms(columns, len(order)))
    assert best > 0
    fetched = np.zeros(len(order))
    fetched[best] = 4.0
    assert sure.pick(Terms({**columns, "ahead": fetched}, len(order))) != best
    winograd = np.full(len(order), float(FAMILIES.index("winograd")))
    both = replace(sure, offsets=np.zeros_like(sure.offsets))
    assert both.pick(Terms({**columns, "family": winograd}, len(order))) == 0


def test_outside_of_what_was_measured_it_stays_analytic(data: Data, model: Learned) -> None:
    columns = {name: data.terms.column(name)[:4] for name in FIELDS}
    assert model.pick(Terms(columns, 4)) != 3
    for change in ({"rows": 1e6}, {"cores": 64.0}, {"family": 4.0}):
        other = Terms({**columns, **{n: np.full(4, v) for n, v in change.items()}}, 4)
        assert model.pick(other) == 0
        ratios = model.seconds(other) / other.seconds
        np.testing.assert_allclose(ratios, ratios[0])


def test_weights_go_through_a_file(data: Data, model: Learned, tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    weights.write(model, path, "cpu", {"seed": 0})
    assert path.stat().st_size < weights.MOST_BYTES
    read = weights.cost_model(str(path))
    np.testing.assert_array_equal(read.seconds(data.terms), model.seconds(data.terms))
    first = path.read_bytes()
    weights.write(fit(data, SMALL), path, "cpu", {"seed": 0})
    assert path.read_bytes() == first


def test_weights_that_cannot_be_used_are_refused(model: Learned, tmp_path: Path) -> None:
    path = tmp_path / "good.json"
    weights.write(model, path, "cpu", {})
    good = path.read_text()

    def refused(content: str, said: str, kind: str = "cpu") -> None:
        other = tmp_path / f"{abs(hash(content))}.json"
        other.write_text(content)
        with pytest.raises(OptionError, match=said):
            weights.cost_model(str(other), kind)

    changed = json.loads(good)
    changed["content"]["forests"][0]["base"] += 1
    refused(json.dumps(changed, separators=(",", ":")), "damaged")
    refused(json.dumps({**json.loads(good), "version": VERSION + 1}), "made for version")
    net = model.perceptrons[0]
    assert net
    narrow = replace(net, weights=(net.weights[0][:, 1:], *net.weights[1:]))
    weights.write(replace(model, perceptrons=(narrow, *model.perceptrons[1:])), path, "cpu", {})
    refused(path.read_text(), "layers of other sizes")
    weights.write(replace(model, perceptrons=(None,) * len(GROUPS)), path, "cpu", {})
    refused(path.read_text(), "perceptrons of other groups")
    refused(good[: len(good) // 2], "cannot be read")
    refused("{}", "not a file of weights")
    refused(good, "of kind cpu, not sm_90", kind="sm_90")
    with pytest.raises(OptionError, match="cannot be read"):
        weights.cost_model(str(tmp_path / "missing.json"))


def test_shipped_weights_can_be_used() -> None:
    for path in weights.SHIPPED.glob("*.json"):
        assert path.stat().st_size < weights.MOST_BYTES
        assert isinstance(weights.cost_model(weights.LEARNED, path.stem), Learned)


def test_a_family_has_its_own_trees(data: Data, model: Learned) -> None:
    """Those of others do not change its prices; without any the analytic one stays."""
    assert model.forests[0] and not any(model.forests[1:])
    family = data.family.copy()
    family[data.group >= 30] = FAMILIES.index("attention")
    columns = {name: data.terms.column(name) for name in FIELDS} | {"family": family.astype(float)}
    terms = Terms(columns, len(family))
    both = fit(replace(data, terms=terms, features=features(terms), family=family), SMALL)
    alone = fit(data.where(np.flatnonzero(data.group < 30)), SMALL)
    first = Terms({name: column[family == 0] for name, column in columns.items()}, sum(family == 0))
    values, groups = features(first), first.column("family").astype(int)
    one, same = (found.corrections(values, groups) for found in (both, alone))
    np.testing.assert_array_equal(one, same)
    other = Terms({**columns, "family": np.full(len(family), 3.0)}, len(family))
    np.testing.assert_array_equal(both.seconds(other), other.seconds)
    assert both.pick(other) == 0


def test_monotone_where_physics_says(data: Data) -> None:
    model = fit(data, SMALL)
    values = np.repeat(data.features[:1], 50, axis=0)
    values[:, NAMES.index("conflicts")] = np.linspace(0, 3, 50)
    found = model.forests[0].predict(values).mean(axis=0)
    assert (np.diff(found) >= -1e-9).all()


def test_the_report_has_its_pictures(data: Data, tmp_path: Path) -> None:
    said = report(data, replace(SMALL, trees=3, rounds=20), tmp_path)
    assert "| gemm | 60 |" in said
    page = (tmp_path / "index.html").read_text()
    for name in ("measured", "top-k", "ratio", "importance", "learning"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f'alt="{name}"' in page


def test_a_network_three_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = "vtc_shufflenet_unit"
    kept = ["--libraries", str(tmp_path / "kept")]
    only = networks.compared(networks.parse([network, *kept, "--seconds", "0"]))
    assert only["kernels"] >= 3 and only["compiles"] == 1 and not only["stock_error"]
    assert set(only["compile_cpu"]) == {"learned", "analytic"} and "ratios" not in only

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it is compiled already")

    monkeypatch.setattr(sides, "compile_sides", never)
    found = networks.compared(networks.parse([network, *kept, "--seconds", "0.2"]))
    assert set(found["ratios"]) == {"analytic"}
    assert set(found["stock_seconds"]) == {"learned", "analytic", "stock"}
    assert found["stock_ratio"] > 1.5  # loops as they are written, against tiles and vectors
    library = tmp_path / "kept" / "stock.so"
    library.unlink()  # a new file: the old one is loaded
    library.write_bytes(b"")
    broken = networks.compared(networks.parse([network, *kept, "--seconds", "0.2"]))
    assert broken["stock_error"] and "stock_ratio" not in broken and "ratios" in broken
    cannot = {"exit_code": 0} | only | {"stock_error": "TVM cannot\n| this"}
    rows = iter([{"exit_code": 0} | found, cannot, {"exit_code": 5, "error": "no | memory"}])
    monkeypatch.setattr(networks, "run_module", lambda *_: next(rows))
    command = ["networks", "--only", "vtc_*_small", "--json", str(tmp_path / "t")]
    text = networks.table(parse(command))
    assert "exit 5: no / memory" in text and "| TVM cannot / this |" in text
    assert "1 networks: time, stock / learned" in text
    assert "2 networks: compile time, learned / analytic" in text


def test_a_slow_side_takes_few_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The rounds that begin in time, two at least, and every side in each of them."""
    calls = []

    class Library:
        def __init__(self, path: Path, **_: object) -> None:
            self.name = path.stem

        def run(self, _: object) -> None:
            calls.append(self.name)
            time.sleep(0.05 if self.name == "slow" else 0.001)

    monkeypatch.setattr(sides.tvmext, "load", Library)
    np.savez(tmp_path / "inputs.npz", x=np.zeros(1))
    found = sides.timed_slow(tmp_path, ("fast", "slow"), 0.01)
    assert calls == ["fast", "slow", *["fast", "fast", "slow"] * sides.LEAST_ROUNDS]
    assert found["slow"] > 10 * found["fast"]
    calls.clear()
    sides.timed_slow(tmp_path, ("fast",), 10.0)
    assert len(calls) == 1 + 2 * sides.MOST_ROUNDS


def test_pairs_that_differ_less_than_their_sessions_are_not_told(data: Data) -> None:
    doubtful = replace(data, apart=np.where(data.terms.column("tile_rows") > 4, 2.0, 0.0))
    rows = np.arange(len(data.seconds))
    found = judge(doubtful, [(Analytic(), rows)])["all"]
    same = judge(data, [(Analytic(), rows)])["all"]
    assert found.pairwise == same.pairwise and found.told_of == pytest.approx(1 / 6)
    assert same.told_of == 1


def test_what_was_drawn_once_is_held_out_on_all_machines(data: Data) -> None:
    """Workloads of the same name, of two machines."""
    assert [name for name, _ in by_machine(data)] == ["machine 0", "machine 1"]
    joined = replace(data, spec=data.group // 2)
    for seen, held in folds(joined, 3, 0):
        assert not set(joined.spec[seen]) & set(joined.spec[held])
        assert len(np.unique(data.machine[held])) == 2
    for number, (name, _, rows) in enumerate(machines_held_out(data, SMALL)):
        assert name == data.machines[number] and set(data.machine[rows]) == {number}


def test_what_lies_between_two_machines_is_not_known(data: Data, model: Learned) -> None:
    low, high = model.low.copy(), model.high.copy()
    assert low.shape == (2, data.features.shape[1])
    low[0], high[0], low[1], high[1] = 0, 1, 3, 4
    apart = replace(model, low=low, high=high)
    values = np.repeat([[0.5], [2.0], [3.5]], low.shape[1], axis=1)
    values[2, 0] = 0.5  # of one machine by one feature, of the other by all others
    gemm = np.zeros(3, int)
    assert apart.knows(values, gemm).tolist() == [True, False, False]


def test_each_machine_has_a_table_of_its_own(data: Data, model: Learned) -> None:
    halves = [(model, rows) for _, rows in folds(data, 2, 0)]
    every = judge(data, halves)["all"]
    own = {name: found["all"] for name, found in on_each_machine(data, halves)}
    assert list(own) == ["machine 0", "machine 1"]
    assert sum(one.workloads for one in own.values()) == every.workloads
    logs = [one.workloads * np.log(one.analytic) for one in own.values()]
    assert np.exp(sum(logs) / every.workloads) == pytest.approx(every.analytic)
