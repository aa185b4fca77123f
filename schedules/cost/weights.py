"""Weights of the learned model as files: JSON, with a version and a digest of what they hold."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tvmext.errors import OptionError

from .features import NAMES, VERSION
from .forest import Forest
from .model import GROUPS, Analytic, CostModel, Learned
from .terms import FAMILIES

FORMAT = "tvmext cost model"
SHIPPED = Path(__file__).parent / "weights"
MOST_BYTES = 5_000_000

CONTENT = ',"content":'
"""What stands before the content, which goes to the end of the file but for a bracket."""

ANALYTIC, LEARNED = "analytic", "learned"


def cost_model(name: str, kind: str = "cpu") -> CostModel:
    """The model of an option: "analytic", "learned" (as shipped for a kind of machine), or a path.

    Raises OptionError for a file that is not there, is damaged, or was made for another version.
    """
    if name == ANALYTIC:
        return Analytic()
    if name == LEARNED:
        return read(SHIPPED / f"{kind}.json", kind)
    return read(Path(name), kind)


def write(model: Learned, path: Path, kind: str, origin: dict[str, Any]) -> None:
    """`origin` says what the weights were made from: plain data."""
    content = {
        "kind": kind,
        "families": list(FAMILIES),
        "features": list(NAMES),
        "groups": [list(group) for group in GROUPS],
        "forests": [forest and _plain(forest) for forest in model.forests],
        "low": _short(model.low),
        "high": _short(model.high),
        "offsets": _short(model.offsets),
        "origin": origin,
    }
    inner = json.dumps(content, separators=(",", ":"))
    head = {"format": FORMAT, "version": VERSION, "sha256": _digest(inner)}
    text = json.dumps(head, separators=(",", ":"))[:-1] + CONTENT + inner + "}"
    if len(text) > MOST_BYTES:
        raise OptionError(f"weights of {len(text)} bytes", hint="fewer or smaller trees")
    path.write_text(text + "\n")


@lru_cache(maxsize=4)
def read(path: Path, kind: str = "cpu") -> Learned:
    """The model in a file. Raises OptionError if there is none that can be used."""
    hint = "train weights with python -m tools.train, or leave --cost-model at analytic"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise OptionError(f"cost model {path}: larger than {MOST_BYTES} bytes", hint=hint)
        text = path.read_text()
        found = json.loads(text)
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise OptionError(f"cost model {path}: cannot be read: {reason}", hint=hint) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise OptionError(f"cost model {path}: not a file of weights", hint=hint)
    if found.get("version") != VERSION:
        said = f"made for version {found.get('version')} of the features, this is {VERSION}"
        raise OptionError(f"cost model {path}: {said}", hint=hint)
    content = found.get("content")
    inner = text.partition(CONTENT)[2].rstrip()[:-1]
    if not isinstance(content, dict) or found.get("sha256") != _digest(inner):
        raise OptionError(f"cost model {path}: damaged, its digest does not match", hint=hint)
    if content["kind"] != kind:
        said = f"for machines of kind {content['kind']}, not {kind}"
        raise OptionError(f"cost model {path}: {said}", hint=hint)
    if content["features"] != list(NAMES) or content["families"] != list(FAMILIES):
        raise OptionError(f"cost model {path}: other features under the same version", hint=hint)
    if content["groups"] != [list(group) for group in GROUPS]:
        raise OptionError(f"cost model {path}: other groups under the same version", hint=hint)
    try:
        return _model(content)
    except (KeyError, TypeError, ValueError) as error:
        raise OptionError(f"cost model {path}: not complete: {error}", hint=hint) from None


def _plain(forest: Forest) -> dict[str, Any]:
    return {
        "members": forest.members,
        "base": forest.base,
        "feature": forest.feature.tolist(),
        "threshold": _short(forest.threshold),
        "leaf": _short(forest.leaf),
    }


def _model(content: dict[str, Any]) -> Learned:
    forests = tuple(one and _forest(one) for one in content["forests"])
    if len(forests) != len(GROUPS) or len({f.members for f in forests if f}) != 1:
        raise ValueError("forests of other groups, or of different sizes")
    low, high = (np.array(content[name], np.float32) for name in ("low", "high"))
    offsets = np.array([np.nan if v is None else v for v in content["offsets"]], np.float64)
    return Learned(forests, low, high, offsets)


def _forest(content: dict[str, Any]) -> Forest:
    forest = Forest(
        np.array(content["feature"], np.intp),
        np.array(content["threshold"], np.float32),
        np.array(content["leaf"], np.float32),
        int(content["members"]),
        float(content["base"]),
    )
    trees, inner = forest.feature.shape
    if forest.threshold.shape != (trees, inner) or forest.leaf.shape != (trees, inner + 1):
        raise ValueError("trees of different sizes")
    if trees % forest.members or not 0 <= forest.feature.min() <= forest.feature.max() < len(NAMES):
        raise ValueError("trees of other features")
    return forest


def _short(values: np.ndarray) -> Any:
    """Nested lists of the shortest decimals that are the same float32; None for NaN."""
    if values.ndim > 1:
        return [_short(row) for row in values]
    return [None if np.isnan(v) else float(str(np.float32(v))) for v in values]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
