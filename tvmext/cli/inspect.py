"""``tvmext inspect``: what is in a model or a library, and what the machine is."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console, parameters
from .model import Description, describe
from .session import Session, common_options

if TYPE_CHECKING:
    from tvmext.artifact import ArtifactMetadata


@click.command(
    "inspect",
    short_help="Show a model, a compiled library, or the machine.",
    epilog="""\b
Examples:
  tvmext inspect model.onnx
  tvmext inspect model.so --json
  tvmext inspect arch
""",
)
@click.argument("what", metavar="MODEL|LIBRARY|arch")
@parameters.format_options
@common_options
@click.pass_obj
def command(session: Session, what: str, trust: bool, model_format: str | None) -> None:
    """Show what a model declares and needs, what a compiled library says about itself, or, for the
    word "arch", the machine as tvmext sees it.
    """
    path = Path(what)
    if what == "arch" and not path.exists():
        _show_arch(session)
    elif path.suffix == ".so" and model_format is None:
        _show_library(session, path)
    else:
        _show_model(session, describe(path, trust, model_format))


def _show_arch(session: Session) -> None:
    from tvmext.arch import from_device

    arch = from_device()
    if session.json:
        console.print_json({"kind": "arch", **asdict(arch)})
    else:
        console.print_facts(dict(arch.describe()))


def _show_library(session: Session, path: Path) -> None:
    from tvmext.arch import flags
    from tvmext.artifact import read_metadata
    from tvmext.build.elf import read_section

    metadata = read_metadata(path)
    code = len(read_section(path, ".text").content or b"")
    sizes = {"bytes": path.stat().st_size, "code_bytes": code}
    found = {"kind": "library", **sizes, **console.described(metadata)}
    if session.json:
        console.print_json(found)
        return
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    console.print_facts(
        {
            "library": f"{path}, {console.size_text(found['bytes'])}",
            "code": console.size_text(found["code_bytes"]),
            "model": f"{metadata.source} (SHA-256 {metadata.model_sha256[:16]})",
            "target": " ".join(flags(metadata.target)),
            "made by": versions,
        }
    )
    _print_signature(metadata)
    if metadata.updated_inputs:
        click.echo()
        rows = [(name, output) for output, name in metadata.updated_inputs.items()]
        console.print_table("", ("a run overwrites", "with"), rows)
    rules = Counter(decision["rule"] for decision in metadata.decisions.values())
    if rules:
        click.echo()
        console.print_table("kernels", ("rule", "count"), rules.most_common(), numeric=("count",))
    chosen = [
        (name, made["rule"], *told)
        for name, made in metadata.decisions.items()
        if (told := _variants(made["decision"]))
    ]
    if chosen:
        click.echo()
        columns = ("kernel that chooses when it runs", "rule", "variants", "among")
        console.print_table("", columns, chosen, numeric=("variants",))


def _variants(decision: Any) -> tuple[int, str] | None:
    """How many variants a kernel has for sizes that are known at run time only, and which."""
    if not isinstance(decision, dict):
        return None
    if others := decision.get("others"):
        every = [decision, *others]
        tiles = [f"{d['tile']['rows']}x{d['tile']['vectors']} {d['rhs']}" for d in every]
        return len(every), ", ".join(tiles)
    if heights := decision.get("heights"):
        told = "tiles of " + ", ".join(str(height) for height, _ in heights) + " rows"
        return len(heights), told
    if decision.get("block_bytes"):
        return 1, f"blocks of {decision['block_bytes']} bytes"
    return None


def _show_model(session: Session, model: Description) -> None:
    if session.json:
        found = {
            "kind": "model",
            "inputs": [console.spec_json(spec) for spec in model.inputs],
            "outputs": [console.spec_json(spec) for spec in model.outputs],
            "dims": model.dims,
            "guards": [guard.to_json() for guard in model.guards],
            "operators": model.operators,
            "unsupported": model.unsupported,
        }
        console.print_json(found)
        return
    _print_signature(model)
    if model.operators:
        click.echo()
        columns = ("operator", "count")
        console.print_table("", columns, model.operators.items(), numeric=("count",))
    for op in model.unsupported:
        click.echo(f"\nnot supported: {op}")


def _print_signature(model: Description | ArtifactMetadata) -> None:
    """Inputs and outputs, dims with their ranges, and what must hold between dims."""
    console.print_signature(model.inputs, model.outputs)
    if model.dims:
        click.echo()
        rows = [(d.title, *map(_limit, (d.low, d.opt, d.high))) for d in model.dims.values()]
        columns = ("dim", "min", "usual", "max")
        console.print_table("", columns, rows, numeric=columns[1:])
    if model.guards:
        click.echo()
        conditions = [(str(guard), guard.reason) for guard in model.guards]
        console.print_table("", ("must hold", "because of"), conditions)


def _limit(size: int | None) -> str:
    return "" if size is None else str(size)
