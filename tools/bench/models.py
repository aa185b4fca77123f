"""Whole models: what to compile and to feed, and the row that a worker makes of it.

A request is {"model": path of an ONNX file, "library": path of what tvmext made of it, "inputs":
path of an .npz file}; the row adds figures and the profile of our kernels. "beside", if there, are
libraries of ours by name that take turns with the others; "step" is that of a quantized result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

import tvmext
from tvmext.cli.arrays import fill
from tvmext.measure.agreement import agreement
from tvmext.measure.figures import Figures, figures
from tvmext.measure.host import interruptions
from tvmext.measure.machine import Machine
from tvmext.measure.profile import profile_model
from tvmext.measure.rivals import session_of
from tvmext.measure.samples import Round
from tvmext.measure.timing import Call, measure

from .cases.case import Arrays

OURS, RIVAL = "tvmext", "onnxruntime"
PROFILED_RUNS = 10
RECIPE = "light.inputs"
"""Metadata of the models in tests/zoo, which come without weights and with recipes for inputs."""

Rounds = Callable[[Mapping[str, Call]], list[Round]]


def latency(model: Path, library: Path, inputs: Arrays, seconds: float, threads: int) -> Figures:
    """ONNX Runtime and us in turns for at most `seconds`: `figures.figures`.

    The process must have been started with TVM_NUM_THREADS set to `threads`.
    """
    calls = _calls(str(model), library, inputs, threads)
    return figures(measure(calls, Machine(threads), interruptions(threads), seconds=seconds), OURS)


def model_row(
    request: Mapping[str, Any], threads: int, machine: Machine, rounds: Rounds
) -> Figures:
    """The row of a request; `rounds` lets calls take turns. "error" if the outputs differ."""
    inputs = dict(np.load(request["inputs"]))
    library = Path(request["library"])
    row: Figures = {"name": request["name"], "threads": threads}
    calls = _calls(request["model"], library, inputs, threads)
    for name, other in request.get("beside", {}).items():
        calls[name] = partial(tvmext.load(other, num_threads=threads).run, inputs)
    try:
        pairs = zip(calls[OURS]().values(), calls[RIVAL]())
        step = request.get("step", 0.0)
        row["max_abs"] = max((agreement(*pair, step) for pair in pairs), default=0.0)
    except ValueError as error:
        return {**row, "error": str(error)}
    compiled = tvmext.load(library, num_threads=threads)
    found = profile_model(compiled, inputs, PROFILED_RUNS, machine)
    return {**row, **figures(rounds(calls), OURS), "profile": found.to_json()}


def _calls(model: str, library: Path, inputs: Arrays, threads: int) -> dict[str, Callable[[], Any]]:
    """What users of either side call, NumPy arrays in and out."""
    compiled = tvmext.load(library, num_threads=threads)
    session = session_of(model, threads)
    names = [spec.name for spec in compiled.outputs]
    return {OURS: lambda: compiled.run(inputs), RIVAL: lambda: session.run(names, inputs)}


@contextmanager
def prepared(path: Path, sizes: Mapping[str, Any], free: bool) -> Iterator[dict[str, Any]]:
    """The request for the model at `path`; its files live as long as the context.

    `sizes` are those of the named dims at which it runs. It is compiled for just these, or with
    `free` for any. Inputs are made up; a model of tests/zoo also gets its weights.
    """
    with TemporaryDirectory(prefix="tvmext-bench-") as folder:
        source, library, npz = (Path(folder) / name for name in ("m.onnx", "m.so", "inputs.npz"))
        model = onnx.load(path, load_external_data=False)
        recipe = {entry.key: entry.value for entry in model.metadata_props}.get(RECIPE)
        inputs: dict[str, np.ndarray] = {}
        if recipe:
            inputs = _from_recipe(path, source, json.loads(recipe)["dims"], sizes)
            sizes = _sizes(model, inputs)
        else:
            source = path.resolve()
        compiled = tvmext.compile(source, dims=None if free else dict(sizes))
        compiled.save(library)
        if not inputs:
            left = {name: sizes[name] for name in compiled.metadata.dims if name in sizes}
            inputs = fill({}, compiled, left, "random")
        np.savez(npz, allow_pickle=False, **inputs)
        yield {"name": path.stem, "model": str(source), "library": str(library), "inputs": str(npz)}


def _from_recipe(
    path: Path, target: Path, usual: Mapping[str, int], sizes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Draw the weights of a model of tests/zoo into `target`, and inputs: batch 1, usual sizes."""
    from tests.zoo import light

    model = light.load(path)
    light.save(model, target)
    batch = {"batch": 1} if "batch" in usual else {}
    found: dict[str, np.ndarray] = light.make_inputs(model, **{**usual, **batch, **sizes})
    return found


def _sizes(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The size of every named dim of the graph inputs, read off the arrays."""
    return {
        dim.dim_param: size
        for value in model.graph.input
        if value.name in inputs
        for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name].shape)
        if dim.dim_param
    }
