"""What the verbs' parameters have in common: dims, shapes, and the options of a compilation."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import click

from tvmext.errors import OptionError, OptionWarning
from tvmext.frontends import MODEL_FORMATS
from tvmext.options import Options

from .model import bind_shapes
from .progress import Progress

if TYPE_CHECKING:
    from tvmext.frontends.dims import DimSpec
    from tvmext.runtime import CompiledModel

_SHAPE = re.compile(r"\s*(?P<name>[^\s\[\]]+)\s*:\s*\[(?P<dims>[^\]]*)\][\s,;]*")
_NAMED = re.compile(r"\s*(?P<name>[^=]+?)\s*=\s*(?P<value>.*?)\s*", re.DOTALL)


def dim_spec(text: str) -> tuple[str, DimSpec]:
    """Read ``batch=4``, ``batch=1:64``, ``batch=1:8:64`` or, without a limit, ``batch=1:``."""
    name, value = _named(text, "--dim")
    match [None if part == "" else _integer(part) for part in value.split(":")]:
        case [int(size)]:
            return name, size
        case [int(low), (int() | None) as high]:
            return name, (low, high)
        case [int(low), int(opt), (int() | None) as high]:
            return name, (low, opt, high)
    raise OptionError(
        f"--dim {text}: '{value}' is not a size or a range",
        hint=f"--dim {name}=4, --dim {name}=1:64 or --dim {name}=1:8:64 (min:usual:max)",
    )


def dim_size(text: str) -> tuple[str, int]:
    """Read ``batch=4``."""
    name, value = _named(text, "--dim")
    size = _integer(value)
    if not isinstance(size, int):
        raise OptionError(f"--dim {text}: '{value}' is not a size", hint=f"--dim {name}=4")
    return name, size


def dim_sizes(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``batch=1,3,7``: the sizes to run at, one after the other."""
    name, value = _named(text, "--dim")
    sizes = [_integer(part) for part in value.split(",")]
    if not all(isinstance(size, int) for size in sizes):
        raise OptionError(
            f"--dim {text}: '{value}' is not a list of sizes", hint=f"--dim {name}=1,3,7"
        )
    return name, tuple(size for size in sizes if isinstance(size, int))


def input_shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Read ``x:[1,3,224,224] mask:[1,77]``, the way tvmc writes the shapes of inputs."""
    found: dict[str, tuple[int, ...]] = {}
    position = 0
    while position < len(text):
        match = _SHAPE.match(text, position)
        sizes = [part for part in re.split(r"[,\s]+", match["dims"]) if part] if match else []
        if match is None or not all(isinstance(_integer(size), int) for size in sizes):
            raise OptionError(
                f"--input-shapes: cannot read '{text[position:]}'",
                hint='--input-shapes "x:[1,3,224,224] mask:[1,77]"',
            )
        found[match["name"]] = tuple(map(int, sizes))
        position = match.end()
    return found


def _integer(text: str) -> int | str:
    """The number that `text` is, else `text`."""
    return int(text) if re.fullmatch(r"\s*-?\d+\s*", text) else text


def _named(text: str, flag: str) -> tuple[str, str]:
    match = _NAMED.fullmatch(text)
    if match is None:
        lacks = "name" if text.startswith("=") else "'='"
        raise OptionError(f"{flag} {text}: there is no {lacks}", hint=f"{flag} NAME=VALUE")
    return match["name"], match["value"]


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how a model is compiled, beside the fields of `Options`."""
    function = click.option(
        "--dim",
        "dims",
        multiple=True,
        metavar="NAME=SIZE",
        help="Bind a dim (batch=4) or give its range (batch=1:64, or min:usual:max batch=1:8:64).",
    )(function)
    return target_option(format_options(shapes_option(function)))


def format_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how a model file is read."""
    function = click.option(
        "--model-format",
        type=click.Choice(MODEL_FORMATS),
        help="The format of the model.  [default: by its suffix]",
    )(function)
    return trust_option(function)


trust_option = click.option(
    "--trust", is_flag=True, help="Run a .py file that holds a model; it may do anything."
)
shapes_option = click.option(
    "--input-shapes",
    metavar="SHAPES",
    help='Bind all dims of these inputs, as "x:[1,3,224,224] mask:[1,77]".',
)


def target_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says which machine to compile for."""
    function = click.option(
        "--arch", metavar="NAME", help="The GPU, as sm_90a or h100.  [default: the one here]"
    )(function)
    return click.option(
        "--target",
        default="llvm",
        show_default=True,
        help='The machine: "llvm" is this one, "llvm -mcpu=x86-64-v3" another, "cuda" a GPU.',
    )(function)


def target_of(given: Mapping[str, Any]) -> str:
    """The target that --target and --arch say together."""
    target, arch = given["target"], given.get("arch")
    if arch and not target.startswith("cuda"):
        raise OptionError(f"--arch {arch} names a GPU", hint=f"--target cuda --arch {arch}")
    return f"{target} -arch={arch}" if arch else target


def runtime_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says where a library runs."""
    function = click.option(
        "--num-threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="How many threads to use.  [default: one per core]",
    )(function)
    return click.option("--device", metavar="DEVICE", help="Where to run.  [default: cpu]")(
        function
    )


def cache_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says where kernels compiled for a GPU are kept."""
    function = click.option(
        "--no-cache", is_flag=True, help="Compile every kernel anew, and keep none."
    )(function)
    return click.option(
        "--cache-dir",
        metavar="FOLDER",
        help="Where compiled kernels are kept.  [default: $TVMEXT_CACHE, else ~/.cache/tvmext]",
    )(function)


def compile_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add one command line option per field of `Options`, in the order of the fields."""
    return options_of(*(field.name for field in fields(Options)))(function)


def options_of(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of these fields of `Options`; the others keep their defaults."""
    hints, known = get_type_hints(Options), {field.name: field for field in fields(Options)}

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = _click_option(known[name], hints[name])(function)
        return function

    return add


def as_options(values: Mapping[str, Any], **more: Any) -> Options:
    """The `Options` that the parsed command line says; `values` may hold other parameters too.

    `more` are values of fields that the verb has other options for.
    """
    hints = get_type_hints(Options)
    said = {f.name: values[f.name] for f in fields(Options) if f.name in values}
    return Options(**{name: _value(hints[name], value) for name, value in said.items()} | more)


def names(given: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a repeatable option that takes several at once, ``A,B``."""
    return tuple(name for text in given for name in text.split(",") if name)


def collect(pairs: tuple[str, ...], read: Callable[[str], tuple[str, Any]]) -> dict[str, Any]:
    """The values of a repeatable ``NAME=VALUE`` option as a mapping; a name may come once."""
    found: dict[str, Any] = {}
    for text in pairs:
        name, value = read(text)
        if name in found:
            raise OptionError(f"dim '{name}' is given twice", hint="give each dim once")
        found[name] = value
    return found


def compile_model(
    path: Path, given: Mapping[str, Any], progress: Progress, dump_prefix: Path | None = None
) -> CompiledModel:
    """Compile the model at `path` as the command line says.

    `given` are parsed parameters by name; those that the verb does not have take their defaults.
    """
    import tvmext

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", OptionWarning)
        compiled = tvmext.compile(
            path,
            **model_arguments(path, given),
            dump_prefix=dump_prefix,
            cache="off" if given.get("no_cache") else given.get("cache_dir"),
            progress=progress,
            output=progress.output,
        )
    for warning in told:
        progress.output(f"warning: {warning.message}\n")
    return compiled


def model_arguments(path: Path, given: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The arguments of `tvmext.compile` and `tvmext.explain` that the command line says.

    `more` are as in `as_options`.
    """
    form = {"trust": given["trust"], "model_format": given.get("model_format")}
    dims = collect(given.get("dims", ()), dim_spec)
    if shapes := given.get("input_shapes"):
        dims = bind_shapes(path, input_shapes(shapes), dims, **form)
    options = as_options(given, **more)
    return {"target": target_of(given), "dims": dims, "options": options, **form}


def _click_option(field: Field[Any], kind: Any) -> Callable[[Callable[..., Any]], Any]:
    names = [field.name, f"--{field.name.replace('_', '-')}"]
    if "short" in field.metadata:
        names.append(field.metadata["short"])
    help_text = field.metadata["help"]
    settings: dict[str, Any] = {"help": help_text[:1].upper() + help_text[1:] + "."}
    if kind is bool:
        settings["is_flag"] = True
    elif kind in (int, str):
        choices = field.metadata.get("choices")
        read = click.Choice(choices) if choices else kind
        if field.metadata.get("metavar") == "FILE":
            read = click.Path(dir_okay=False)
        settings |= {"type": read, "default": field.default, "show_default": field.default != ""}
        if "metavar" in field.metadata:
            settings["metavar"] = field.metadata["metavar"]
    else:
        settings |= {"multiple": True, "metavar": field.metadata.get("metavar", "NAME,...")}
    return click.option(*names, **settings)


def _value(kind: Any, given: Any) -> Any:
    if get_origin(kind) is not tuple:
        return given
    if get_args(kind)[0] is str:
        return names(given)
    return tuple(_setting(text) for text in given)


def _setting(text: str) -> tuple[str, bool | int | str]:
    """One ``KEY=VALUE`` of a pass configuration: true and false are bools, digits are ints."""
    name, value = _named(text, "--pass-config")
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    return name, int(value) if re.fullmatch(r"-?\d+", value) else value
