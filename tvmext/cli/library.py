"""What verbs that run a network share: a library, or a model to compile first, and its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tvmext.build.elf import is_elf
from tvmext.errors import ArtifactError, OptionError

from . import arrays, parameters
from .model import bind_inputs
from .progress import Progress

if TYPE_CHECKING:
    import numpy as np

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


def read_inputs(path: Path | None) -> dict[str, np.ndarray]:
    """The arrays of the file of inputs; none if there is no such file."""
    from tvmext.verification.reference import read_arrays

    return read_arrays(path, "inputs") if path is not None else {}


def opened(
    model: Path, library: Path | None, given: Mapping[str, Any], rivals: bool = False
) -> CompiledModel:
    """The library, or without one what `model` compiles to as the command line says.

    With `rivals` that is for them to compile, too. Raises ArtifactError if the two are the wrong
    way round.
    """
    import tvmext

    if library is not None:
        if is_elf(model) and not is_elf(library):
            raise ArtifactError(
                f"{model} is a library, and {library} is none",
                hint=f"the model goes first: {library} {model}",
            )
        if not rivals:
            _refuse_to_compile(library)
        return tvmext.load(library, given["device"], given["num_threads"])
    _check_gpu(given)
    with Progress() as progress:
        compiled = parameters.compile_model(model, given, progress)
    compiled.num_threads = given["num_threads"]
    return compiled


def _check_gpu(given: Mapping[str, Any]) -> None:
    """Raises OptionError if a model is to be compiled for a GPU and run, and there is none."""
    if parameters.target_of(given).startswith("cuda"):
        from tvmext.arch.cuda import from_device

        try:
            from_device()
        except OptionError as error:
            raise OptionError(
                f"--target {given['target']}: {error.message}, and the model is to be run here",
                hint="tvmext compile MODEL --target cuda --arch ..., and run that where the GPU is",
            ) from error


def _refuse_to_compile(library: Path) -> None:
    """Raises OptionError if the command line says how to compile what is compiled already."""
    context = click.get_current_context()
    for name in ("target", "arch"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise OptionError(
                f"--{name} is for a model that is compiled first; '{library}' is compiled already",
                hint=f"tvmext compile MODEL --{name} ... -o {library}, or leave it out",
            )


def sizes(compiled: CompiledModel, given: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that --input-shapes gives to dims that `compiled` has left free."""
    shapes = parameters.input_shapes(given["input_shapes"] or "")
    bound = bind_inputs(compiled.inputs, shapes, {})
    return {name: size for name, size in bound.items() if isinstance(size, int)}
