"""Weights of the learned model as files: JSON, with a version and a digest of what they hold.

Arrays are in base64: a tree takes 1.5 kB instead of the 3.4 kB of its decimals.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tvmext.errors import OptionError

from .features import NAMES, VERSION
from .forest import Forest
from .model import GROUPS, Analytic, CostModel, Learned
from .perceptron import Perceptrons
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
        "perceptrons": [one and _plain_layers(one) for one in model.perceptrons],
        "low": [_short(own) for own in model.low],
        "high": [_short(own) for own in model.high],
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
        "feature": _coded(forest.feature, "<u2"),
        "threshold": _coded(forest.threshold, "<f4"),
        "leaf": _coded(forest.leaf, "<f4"),
    }


def _plain_layers(found: Perceptrons) -> dict[str, Any]:
    """Weights and biases are float16 already (tools/train/perceptron.py)."""
    return {
        "base": found.base,
        "used": _coded(found.used, "<u2"),
        "mean": _coded(found.mean, "<f4"),
        "scale": _coded(found.scale, "<f4"),
        "weights": [_coded(layer, "<f2") for layer in found.weights],
        "biases": [_coded(layer, "<f2") for layer in found.biases],
    }


def _coded(values: np.ndarray, dtype: str) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
    return {"dtype": dtype, "shape": list(values.shape), "base64": data}


def _array(content: dict[str, Any], dtype: type) -> np.ndarray:
    found = np.frombuffer(base64.b64decode(content["base64"]), content["dtype"])
    return found.reshape(content["shape"]).astype(dtype)


def _model(content: dict[str, Any]) -> Learned:
    forests = tuple(one and _forest(one) for one in content["forests"])
    if len(forests) != len(GROUPS):
        raise ValueError("forests of other groups")
    perceptrons = tuple(one and _perceptrons(one) for one in content["perceptrons"])
    if [one is None for one in forests] != [one is None for one in perceptrons]:
        raise ValueError("perceptrons of other groups")
    low, high = (np.array(content[name], np.float32) for name in ("low", "high"))
    if low.shape != high.shape or low.shape[1:] != (len(NAMES),):
        raise ValueError("ranges of other features")
    offsets = np.array([np.nan if v is None else v for v in content["offsets"]], np.float64)
    return Learned(forests, perceptrons, low, high, offsets)


def _forest(content: dict[str, Any]) -> Forest:
    forest = Forest(
        _array(content["feature"], np.intp),
        _array(content["threshold"], np.float32),
        _array(content["leaf"], np.float32),
        int(content["members"]),
        float(content["base"]),
    )
    trees, inner = forest.feature.shape
    if forest.threshold.shape != (trees, inner) or forest.leaf.shape != (trees, inner + 1):
        raise ValueError("trees of different sizes")
    if trees % forest.members or not 0 <= forest.feature.min() <= forest.feature.max() < len(NAMES):
        raise ValueError("trees of other features")
    return forest


def _perceptrons(content: dict[str, Any]) -> Perceptrons:
    weights, biases = (
        tuple(_array(one, np.float32) for one in content[name]) for name in ("weights", "biases")
    )
    mean, scale = (_array(content[name], np.float32) for name in ("mean", "scale"))
    used, base = _array(content["used"], np.intp), float(content["base"])
    found = Perceptrons(used, mean, scale, weights, biases, base)
    sizes = [len(found.used), *(bias.shape[1] for bias in found.biases)]
    fitting = [(found.members, *pair) for pair in pairwise(sizes)]
    if [weight.shape for weight in found.weights] != fitting or sizes[-1] != 1:
        raise ValueError("layers of other sizes")
    if not 0 <= found.used.min() <= found.used.max() < len(NAMES):
        raise ValueError("perceptrons of other features")
    return found


def _short(values: np.ndarray) -> list[float | None]:
    """The shortest decimals that are the same float32; None for NaN."""
    return [None if np.isnan(v) else float(str(np.float32(v))) for v in values]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
