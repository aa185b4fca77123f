"""``tvmext run``: a compiled library, or a model, runs on inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import arrays, console, parameters
from .compile import check_output
from .library import fill_options, library_options, opened, read_inputs, sizes
from .profile import print_profile, profile_options, profiled, wanted
from .progress import resting
from .session import Session, common_options

if TYPE_CHECKING:
    import numpy as np


@click.command(
    "run",
    short_help="Run a compiled library, or a model, on inputs.",
    epilog="""\b
Examples:
  tvmext run resnet50.so -i photos.npz -o scores.npz
  tvmext run bert.so --dim batch=8 --dim seq=128 --print-time --repeat 20
  tvmext run bert.so --profile --profile-html bert.html
""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--outputs",
    "outputs_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the outputs to this .npz file.",
)
@fill_options
@click.option("--print-time", is_flag=True, help="Print how long a run takes.")
@click.option(
    "--print-top",
    type=click.IntRange(min=1),
    metavar="N",
    help="Print the N largest values of each output and where they are, in its first row.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many times to measure, with --print-time.",
)
@click.option(
    "--number",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many runs make one measurement.",
)
@profile_options
@library_options
@common_options
@click.pass_obj
def command(
    session: Session,
    model: Path,
    inputs_path: Path | None,
    outputs_path: Path | None,
    fill_mode: str,
    dims: tuple[str, ...],
    print_time: bool,
    print_top: int | None,
    repeat: int,
    number: int,
    **given: Any,
) -> None:
    """Run MODEL, a library that `tvmext compile` wrote; a model file is compiled first.

    Inputs come from --inputs; the others are filled. --print-time runs once to warm up and then
    takes --repeat measurements of --number runs each. --profile times every kernel and says which
    nodes of the model it computes and how near it is to what the machine can do.
    """
    if outputs_path is not None:
        check_output(outputs_path)
    profile = wanted(given)
    profile.check()
    sized = parameters.collect(dims, parameters.dim_size)
    read = read_inputs(inputs_path)
    compiled = opened(model, model if model.suffix == ".so" else None, given)
    inputs = arrays.fill(read, compiled, sizes(compiled, given) | sized, fill_mode)
    outputs = compiled.run(inputs)
    if outputs_path is not None:
        arrays.write_npz(outputs_path, outputs)
    result: dict[str, Any] = {
        "outputs": [_summary(name, array) for name, array in outputs.items()],
    }
    if print_time:
        with resting(f"measuring {repeat} times"):
            result["time_ms"] = _times(lambda: compiled.run(inputs), repeat, number)
    if print_top:
        result["top"] = {name: _largest(array, print_top) for name, array in outputs.items()}
    found = profiled(compiled, inputs, profile) if profile else None
    if found and session.json:
        result["profile"] = found.to_json()
    if session.json:
        console.print_json(result)
        return
    _print(result)
    if found and profile.table:
        click.echo()
        print_profile(found)


def _times(call: Callable[[], object], repeat: int, number: int) -> dict[str, float]:
    """Milliseconds of one call of `call`, over `repeat` measurements of `number` calls each."""
    samples = []
    for _ in range(repeat):
        started = time.perf_counter()
        for _ in range(number):
            call()
        samples.append((time.perf_counter() - started) * 1e3 / number)
    return {
        "mean": statistics.fmean(samples),
        "median": statistics.median(samples),
        "max": max(samples),
        "min": min(samples),
        "std": statistics.pstdev(samples),
    }


def _summary(name: str, array: np.ndarray) -> dict[str, Any]:
    """What an output looks like: "name", "dtype", "shape", "min", "max" and "mean"."""
    numbers = array.astype("float64") if array.size and array.dtype.kind not in "OSUc" else None
    values = {
        what: None if numbers is None else float(getattr(numbers, what)())
        for what in ("min", "max", "mean")
    }
    return {"name": name, "dtype": str(array.dtype), "shape": array.shape, **values}


def _largest(array: np.ndarray, count: int) -> list[dict[str, Any]]:
    """The `count` largest values of the first row (along the last axis) and their indices."""
    row = array.reshape(-1, array.shape[-1] if array.ndim else 1)[:1].reshape(-1)
    order = row.argsort(kind="stable")[::-1][:count]
    return [{"index": int(index), "value": row[index].item()} for index in order]


def _print(result: Mapping[str, Any]) -> None:
    statistics_columns = ("min", "max", "mean")
    console.print_table(
        "",
        ("output", "dtype", "shape", *statistics_columns),
        [
            (
                output["name"],
                output["dtype"],
                console.shape_text(output["shape"]),
                *(console.number_text(output[what]) for what in statistics_columns),
            )
            for output in result["outputs"]
        ],
        numeric=statistics_columns,
    )
    for name, values in result.get("top", {}).items():
        click.echo()
        console.print_table(
            f"largest of {name}, first row",
            ("index", "value"),
            [(entry["index"], console.number_text(entry["value"])) for entry in values],
            numeric=("index", "value"),
        )
    if times := result.get("time_ms"):
        click.echo()
        console.print_table(
            "milliseconds per run",
            tuple(times),
            [[f"{value:.4f}" for value in times.values()]],
            numeric=tuple(times),
        )
