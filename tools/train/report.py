"""What the model knows, as a page and pictures: ``index.html`` and one PNG for each picture."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import xgboost as xgb

from tvmext.schedules.cost.features import NAMES
from tvmext.schedules.cost.features import table as feature_table

from .data import Data, families, folds
from .fit import booster, fit
from .judge import Verdict, judge, text
from .settings import Settings

FOLDS = 5
SHARES = (0.125, 0.25, 0.5, 1.0)
MOST_FEATURES = 20


def report(data: Data, settings: Settings, folder: Path) -> str:
    """Write the page; returns the table that is on it."""
    folder.mkdir(parents=True, exist_ok=True)
    models = [(fit(data.where(seen), settings), held) for seen, held in folds(data, FOLDS, 0)]
    verdicts = judge(data, models)
    pictures = {
        "measured": _measured(data, models),
        "top-k": _top(data, models),
        "ratio": _ratio(verdicts),
        "importance": _importance(data, settings),
        "learning": _learning(data, settings),
    }
    parts = [f"<pre>{html.escape(text(verdicts))}</pre>"]
    for name, figure in pictures.items():
        figure.tight_layout()
        figure.savefig(folder / f"{name}.png", dpi=90)
        data_url = io.BytesIO()
        figure.savefig(data_url, dpi=90, format="png")
        encoded = base64.b64encode(data_url.getvalue()).decode()
        parts.append(f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{encoded}">')
        plt.close(figure)
    parts.append(f"<h2>features</h2><pre>{html.escape(feature_table())}</pre>")
    head = "<!doctype html><meta charset=utf-8><title>cost model</title><h1>Cost model</h1>"
    said = f"<p>{len(data.seconds)} measurements, {len(np.unique(data.group))} workloads; "
    said += f"{FOLDS} folds, every workload priced by a model that did not see it.</p>"
    (folder / "index.html").write_text(head + said + "\n".join(parts))
    return text(verdicts)


def _measured(data: Data, models: Any) -> Any:
    """Predicted against measured seconds, held out."""
    figure, axes = plt.subplots(figsize=(6, 5))
    price = np.empty(len(data.seconds))
    for model, rows in models:
        price[rows] = model.seconds(data.where(rows).terms)
    for name, rows in families(data):
        axes.loglog(data.seconds[rows] * 1e6, price[rows] * 1e6, ".", ms=3, label=name)
    ends = [data.seconds.min() * 1e6, data.seconds.max() * 1e6]
    axes.loglog(ends, ends, "k-", lw=0.5)
    axes.set(xlabel="measured, us", ylabel="predicted, us")
    axes.legend()
    return figure


def _top(data: Data, models: Any) -> Any:
    """The best of the first k, over the best of all."""
    figure, axes = plt.subplots(figsize=(6, 4))
    most = 10
    for label, analytic in (("learned", False), ("analytic", True)):
        found = []
        for model, rows in models:
            held = data.where(rows)
            prices = held.terms.seconds if analytic else model.seconds(held.terms)
            for own in held.workloads():
                order = own[np.argsort(prices[own], kind="stable")]
                best = np.minimum.accumulate(held.seconds[order])
                best = np.pad(best, (0, max(0, most - len(best))), mode="edge")[:most]
                found.append(np.log(held.seconds[own].min() / best))
        axes.plot(range(1, most + 1), np.exp(np.mean(found, axis=0)), "o-", label=label)
    axes.set(xlabel="k", ylabel="best of all / best of the first k")
    axes.legend()
    return figure


def _ratio(verdicts: Mapping[str, Verdict]) -> Any:
    """The pick's part of the best speed, by family."""
    figure, axes = plt.subplots(figsize=(6, 4))
    place = np.arange(len(verdicts))
    axes.bar(place - 0.2, [v.analytic for v in verdicts.values()], 0.4, label="analytic")
    axes.bar(place + 0.2, [v.pick for v in verdicts.values()], 0.4, label="learned")
    axes.set_xticks(place, list(verdicts))
    axes.set_ylim(0.8, 1.0)
    axes.set_ylabel("best seconds / seconds of the pick")
    axes.legend(loc="lower right")
    return figure


def _importance(data: Data, settings: Settings) -> Any:
    """Mean absolute SHAP values (Lundberg and Lee, arXiv 1705.07874) of one member on all rows."""
    model = booster(data, settings, float(np.median(data.target)), 0)
    matrix = xgb.DMatrix(data.features, feature_names=list(NAMES))
    shares = np.abs(model.predict(matrix, pred_contribs=True)[:, :-1]).mean(axis=0)
    order = np.argsort(shares)[-MOST_FEATURES:]
    figure, axes = plt.subplots(figsize=(6, 6))
    axes.barh([NAMES[i] for i in order], shares[order])
    axes.set_xlabel("mean |SHAP|, in log seconds")
    return figure


def _learning(data: Data, settings: Settings) -> Any:
    """The ratio of the pick by the number of workloads that were trained on."""
    figure, axes = plt.subplots(figsize=(6, 4))
    rng = np.random.default_rng(0)
    points = []
    for share in SHARES:
        models = []
        for seen, held in folds(data, FOLDS, 0):
            workloads = np.unique(data.group[seen])
            kept = rng.choice(workloads, max(2, int(share * len(workloads))), replace=False)
            rows = seen[np.isin(data.group[seen], kept)]
            models.append((fit(data.where(rows), settings), held))
        found = judge(data, models)["all"]
        points.append((len(kept), found.pick, found.top[0]))
        analytic = found.analytic
    sizes, picks, tops = zip(*points)
    axes.semilogx(sizes, picks, "o-", label="pick")
    axes.semilogx(sizes, tops, "o-", label="top-1")
    axes.axhline(analytic, color="k", lw=0.5, label="analytic")
    axes.set(xlabel="workloads trained on", ylabel="best seconds / seconds")
    axes.legend()
    return figure
