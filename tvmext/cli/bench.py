"""``tvmext bench``: how long runs take, and how that compares with others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvmext.errors import OptionError

from . import arrays, console, parameters
from .compile import check_output
from .library import fill_options, library_options, opened, read_inputs, sizes
from .progress import resting
from .session import Session, common_options

if TYPE_CHECKING:
    from tvmext.build import CompileRequest
    from tvmext.measure.bench import Benchmark
    from tvmext.runtime import CompiledModel

RIVALS = {"onnxruntime": "onnxruntime", "ort": "onnxruntime", "tvm": "tvm"}


@click.command(
    "bench",
    short_help="Measure how long runs take, also against others.",
    epilog="""\b
Examples:
  tvmext bench model.so --dim batch=8 --duration 10
  tvmext bench model.onnx --against onnxruntime,tvm --num-threads 1
""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.option(
    "--against",
    default="",
    metavar="onnxruntime,tvm",
    help="Whom to compare with, in turns: ONNX Runtime, TVM's own passes, or both.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(min=0),
    default=0.2,
    show_default=True,
    metavar="SECONDS",
    help="How long to run before anything is measured.",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to measure each side.",
)
@click.option(
    "--percentiles",
    default="50,90,95,99",
    show_default=True,
    metavar="P,...",
    help="Percentiles of the latency to show.",
)
@fill_options
@click.option(
    "--export",
    "export_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the result as JSON to this file.",
)
@library_options
@common_options
@click.pass_obj
def command(
    session: Session,
    model: Path,
    artifact: Path | None,
    inputs_path: Path | None,
    against: str,
    warmup: float,
    duration: float,
    percentiles: str,
    fill_mode: str,
    dims: tuple[str, ...],
    export_path: Path | None,
    **given: Any,
) -> None:
    """Measure how long runs of MODEL take, arrays in and arrays out: a library, or a model, which
    is compiled first unless ARTIFACT is its library.

    With --against the same inputs go through others as well. Sides take turns, and a ratio is only
    given where the machine was quiet enough to tell.
    """
    from tvmext.measure.bench import benchmark

    rivals = _rivals(against, model)
    wanted = _percentiles(percentiles)
    if export_path is not None:
        check_output(export_path)
    sized = parameters.collect(dims, parameters.dim_size)
    read = read_inputs(inputs_path)
    library = artifact or (model if model.suffix == ".so" else None)
    compiled = opened(model, library, given, bool(rivals))
    _check_device(rivals, compiled)
    inputs = arrays.fill(read, compiled, sizes(compiled, given) | sized, fill_mode)
    sides = f" and {', '.join(rivals)} in turns" if rivals else ""
    with resting(f"measuring runs for {duration:g} s{sides}"):
        found = benchmark(
            compiled,
            inputs,
            warmup=warmup,
            duration=duration,
            percentiles=wanted,
            against=rivals,
            request=_request(model, given) if rivals else None,
        )
    plain = console.plain(found.to_json())
    if export_path is not None:
        arrays.write_text(export_path, json.dumps(plain, indent=2))
    if session.json:
        console.print_json(plain)
    else:
        _print(found)


def _rivals(text: str, model: Path) -> list[str]:
    """The rivals that --against names, each once."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in RIVALS:
            raise OptionError(f"--against {name}: nobody of that name", hint=", ".join(RIVALS))
    if names and model.suffix == ".so":
        raise OptionError(
            f"--against needs the model, {model} is a library",
            hint=f"tvmext bench MODEL {model} --against {text}",
        )
    return list(dict.fromkeys(RIVALS[name] for name in names))


def _check_device(rivals: list[str], compiled: CompiledModel) -> None:
    if rivals and compiled.device != "cpu":
        raise OptionError(
            f"--against compares on the CPU, the library is for {compiled.device}",
            hint="leave --against out; tools/gpu compares on GPUs",
        )


def _percentiles(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = [-1.0]
    if not all(0 <= number <= 100 for number in found):
        raise OptionError(f"--percentiles {text}: not numbers from 0 to 100", hint="50,90,99")
    return found


def _request(model: Path, given: Mapping[str, Any]) -> CompileRequest:
    from tvmext.build import CompileRequest

    told = parameters.model_arguments(model, given)
    return CompileRequest(
        str(model.absolute()),
        "",
        told["target"],
        told["dims"],
        trust=told["trust"],
        model_format=told["model_format"],
        name=str(model),
    )


def _print(found: Benchmark) -> None:
    figures = dict(_latencies(found))
    title = f"milliseconds per run, {found.threads} thread{'s' if found.threads > 1 else ''}"
    if found.sizes:
        title += ", " + ", ".join(f"{name}={size}" for name, size in found.sizes.items())
    row = [f"{value * 1e3:.4g}" for value in figures.values()]
    console.print_table(title, tuple(figures), [row], numeric=tuple(figures))
    latency = found.latency
    click.echo(f"\n{latency.runs} runs, {latency.throughput:.4g} per second")
    if found.figures or found.failed:
        click.echo()
        columns = ("in turns", "minimum", "median", "time over tvmext's")
        console.print_table("", columns, _compared(found), numeric=columns[1:3])


def _latencies(found: Benchmark) -> Iterator[tuple[str, float]]:
    latency = found.latency
    yield "min", latency.minimum
    yield "mean", latency.mean
    for number, seconds in latency.percentiles.items():
        yield ("median" if number == 50 else f"p{number:g}"), seconds
    yield "max", latency.maximum
    yield "std", latency.std


def _compared(found: Benchmark) -> Iterator[tuple[str, str, str, str]]:
    for name, side in found.figures.get("sides", {}).items():
        ratio = found.figures["ratios"].get(name)
        times = (f"{side[key] / 1e3:.4g}" for key in ("min_us", "median_us"))
        yield name, *times, "" if ratio is None else _ratio(ratio)
    for name, reason in found.failed.items():
        yield name, "", "", f"could not take part: {reason}"


def _ratio(ratio: Mapping[str, Any]) -> str:
    if "noisy" in ratio:
        return f"too noisy to tell: {ratio['noisy']}"
    return f"{ratio['value']:.2f} (middle half {ratio['low']:.2f} to {ratio['high']:.2f})"
