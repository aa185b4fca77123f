"""A compiled library as a file: what it says about itself, and whether it can run here.

The metadata are JSON and lie in the library twice: in an ELF section, which `read_metadata` reads
without loading any code, and behind the function ``tvmext_metadata`` for programs on plain TVM.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tvmext import __version__
from tvmext.arch import FAMILIES, CudaArch, from_device, from_target
from tvmext.arch.cuda import from_device as gpu_of_this_machine
from tvmext.build.elf import METADATA_SECTION, read_section
from tvmext.build.files import naming, write_atomically
from tvmext.errors import ArtifactError, OptionError, TvmextError
from tvmext.frontends.dims import Dim, Expr, Guard, parse
from tvmext.frontends.model import TensorSpec
from tvmext.options import Options

__all__ = ["ArtifactMetadata", "check_runs_here", "naming", "read_metadata", "write_atomically"]

FORMAT_VERSION = 1
"""Of the metadata and the calling convention; a library with a higher one is refused."""


@dataclass(frozen=True)
class KernelCall:
    """One call of a kernel in a run: the nodes of the model that it computes, and its work.

    `flops` and `bytes` (read and written) are expressions over the free dims, None where data
    decide the sizes.
    """

    kernel: str
    nodes: tuple[str, ...]
    flops: int | Expr | None
    bytes: int | Expr | None

    def to_json(self) -> dict[str, Any]:
        """Plain data; expressions become text."""
        flops, moved = (None if size is None else str(size) for size in (self.flops, self.bytes))
        return {"kernel": self.kernel, "nodes": list(self.nodes), "flops": flops, "bytes": moved}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> KernelCall:
        flops, moved = (
            None if fields[what] is None else parse(fields[what]) for what in ("flops", "bytes")
        )
        return cls(fields["kernel"], tuple(fields["nodes"]), flops, moved)


@dataclass(frozen=True)
class ArtifactMetadata:
    """What a compiled library says about itself.

    `target` holds the fields of the TVM target, `source` and `model_sha256` name the model as it
    was given, `decisions` is the schedule of every kernel: {kernel: {"rule": name, ...}}.
    `weight_outputs` names outputs that are weights of the model, not results: callers get a copy.
    `input_alignment` is what addresses of inputs are multiples of; else they are copied.
    `updated_inputs` says of outputs which donated input they are, changed: {output: input}.
    `calls` are the kernels in the order in which a run calls them.
    `usage` is what CUDA kernels take: {function: {"registers", "shared", "spill_stores", ...}}.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    target: Mapping[str, Any]
    dims: Mapping[str, Dim] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    options: Options = field(default_factory=Options)
    source: str = ""
    model_sha256: str = ""
    decisions: Mapping[str, Any] = field(default_factory=dict)
    weight_outputs: tuple[str, ...] = ()
    input_alignment: int = 64
    updated_inputs: Mapping[str, str] = field(default_factory=dict)
    calls: tuple[KernelCall, ...] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """One JSON object; `from_json` reads it back."""
        return json.dumps(
            {
                "format_version": self.format_version,
                "versions": {"tvmext": __version__, **self.versions},
                "source": self.source,
                "model_sha256": self.model_sha256,
                "inputs": [_spec_to_json(spec) for spec in self.inputs],
                "outputs": [_spec_to_json(spec) for spec in self.outputs],
                "dims": {name: asdict(dim) for name, dim in self.dims.items()},
                "guards": [guard.to_json() for guard in self.guards],
                "target": dict(self.target),
                "options": asdict(self.options),
                "weight_outputs": list(self.weight_outputs),
                "input_alignment": self.input_alignment,
                "updated_inputs": dict(self.updated_inputs),
                "calls": [call.to_json() for call in self.calls],
                "usage": dict(self.usage),
                "decisions": dict(self.decisions),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ArtifactMetadata:
        """Raises ArtifactError for a newer format, ValueError or KeyError for other text."""
        values = json.loads(text)
        version = values.pop("format_version")
        if version > FORMAT_VERSION:
            made_by = values.get("versions", {}).get("tvmext", "a newer version")
            raise ArtifactError(
                f"its format is version {version}, this tvmext {__version__} reads up to "
                f"{FORMAT_VERSION}",
                hint=f"install tvmext {made_by} or compile the model again",
            )
        return cls(
            **{
                **values,
                "inputs": tuple(map(_spec_from_json, values["inputs"])),
                "outputs": tuple(map(_spec_from_json, values["outputs"])),
                "dims": {name: Dim(**dim) for name, dim in values["dims"].items()},
                "guards": tuple(map(Guard.from_json, values["guards"])),
                "options": Options.from_json(values["options"]),
                "weight_outputs": tuple(values["weight_outputs"]),
                "calls": tuple(map(KernelCall.from_json, values.get("calls", ()))),
            }
        )


def read_metadata(path: str | Path) -> ArtifactMetadata:
    """The metadata of a compiled library, read without loading it.

    Raises ArtifactError if there is no such file or tvmext did not write it.
    """
    path = Path(path)
    hint = "give a library that tvmext compile wrote"
    try:
        section = read_section(path, METADATA_SECTION)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not a compiled library: {error}", hint=hint) from error
    if section.content is None:
        raise ArtifactError(f"{path} was not written by tvmext", hint=hint)
    try:
        return ArtifactMetadata.from_json(section.content.decode())
    except ArtifactError as error:
        raise ArtifactError(f"cannot use {path}: {error.message}", hint=error.hint) from error
    except (ValueError, KeyError, TypeError, TvmextError) as error:
        raise ArtifactError(f"the metadata of {path} are damaged", hint=hint) from error


def check_runs_here(metadata: ArtifactMetadata, path: str | Path) -> None:
    """Raises ArtifactError if this machine cannot run the code of the library."""
    needed = from_target(metadata.target)
    if isinstance(needed, CudaArch):
        _check_gpu(needed, path)
        return
    here = from_device()
    hint = "compile the model on this machine, or with --target for it"
    if needed.isa != here.isa:
        raise ArtifactError(
            f"{path} was compiled for {needed.isa}, this machine is {platform.machine()}", hint=hint
        )
    levels = [family.family for family in FAMILIES.values()]
    missing = sorted(needed.features - here.features)
    if levels.index(needed.family) > levels.index(here.family):
        missing.insert(0, needed.family)
    if missing:
        raise ArtifactError(
            f"{path} was compiled for a CPU with {', '.join(missing)}, which this one lacks",
            hint=hint,
        )


def _check_gpu(needed: CudaArch, path: str | Path) -> None:
    """Machine code runs on its own major capability from its minor one on (CUDA Programming Guide,
    Binary Compatibility); with a suffix on that capability alone."""
    try:
        here = gpu_of_this_machine()
    except OptionError as error:
        raise ArtifactError(
            f"{path} was compiled for {needed.compute}, and {error.message}",
            hint='run it on a machine with an NVIDIA GPU, or compile with --target "llvm"',
        ) from error
    (major, minor), (own_major, own_minor) = needed.capability, here.capability
    exact = not needed.compute[-1].isdigit()
    if major != own_major or minor > own_minor or (exact and minor != own_minor):
        raise ArtifactError(
            f"{path} was compiled for {needed.compute}, the GPU here ({here.device}) is "
            f"{here.compute}",
            hint=f'compile the model with --target "cuda -arch={here.compute}"',
        )


def _spec_to_json(spec: TensorSpec) -> dict[str, Any]:
    fields = {"name": spec.name, "dtype": spec.dtype, "shape": [str(dim) for dim in spec.shape]}
    return {**fields, "stored": spec.stored} if spec.stored else fields


def _spec_from_json(fields: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(map(parse, fields["shape"]))
    return TensorSpec(fields["name"], fields["dtype"], shape, fields.get("stored", ""))
