"""What verbs that run a network share: a library, or a model to compile first, and its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import arrays, parameters
from .model import bind_inputs
from .progress import Progress

if TYPE_CHECKING:
    from tvmext.runtime import CompiledModel


def library_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how a model is compiled, where it runs, and what its inputs are."""
    function = parameters.shapes_option(parameters.target_option(function))
    function = parameters.runtime_options(parameters.format_options(function))
    return click.option(
        "-i",
        "--inputs",
        "inputs_path",
        type=click.Path(path_type=Path),
        help="An .npz file with arrays by input name.  [default: made up]",
    )(function)


def fill_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how inputs that are not given are made up."""
    function = click.option(
        "--dim",
        "dims",
        multiple=True,
        metavar="NAME=SIZE",
        help="The size of a free dim in the inputs that are filled.",
    )(function)
    return click.option(
        "--fill-mode",
        type=click.Choice(arrays.FILL_MODES),
        default="random",
        show_default=True,
        help="How to fill the inputs that --inputs does not give.",
    )(function)


def opened(model: Path, library: Path | None, given: Mapping[str, Any]) -> CompiledModel:
    """The library, or without one what `model` compiles to as the command line says."""
    import tvmext

    if library is not None:
        return tvmext.load(library, given["device"], given["num_threads"])
    with Progress() as progress:
        compiled = parameters.compile_model(model, given, progress)
    compiled.num_threads = given["num_threads"]
    return compiled


def sizes(compiled: CompiledModel, given: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that --input-shapes gives to dims that `compiled` has left free."""
    shapes = parameters.input_shapes(given["input_shapes"] or "")
    bound = bind_inputs(compiled.inputs, shapes, {})
    return {name: size for name, size in bound.items() if isinstance(size, int)}
