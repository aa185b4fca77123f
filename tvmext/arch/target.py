"""From a TVM target, in any of its forms, to a machine, and back."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from tvmext.errors import OptionError

from . import cpu, cuda
from .common import EXAMPLES
from .cpu import CpuArch
from .cuda import CudaArch

Arch: TypeAlias = CpuArch | CudaArch
"""Any machine that code is made for."""


_READ = {
    "llvm": ("kind", "mcpu", "mattr", "mtriple", "num-cores"),
    "cuda": ("kind", "arch", *cuda.to_target(cuda.FAMILIES["sm_80"])),
}
_EXPORTED = ("tag", "keys", "host", "device", "libs")  # which tvm.target.Target adds


def target_fields(target: Any) -> dict[str, Any]:
    """A target's fields, whatever form it comes in; "kind" is one of them.

    Raises OptionError for text that is no target and for options that nothing reads.
    """
    if isinstance(target, Mapping):
        fields = dict(target)
    elif not isinstance(target, str):
        attributes = {name: target.attrs[name] for name in target.attrs}
        fields = {"kind": target.kind.name, **attributes}
        if "mattr" in fields:
            fields["mattr"] = [str(name) for name in fields["mattr"]]
    elif target.lstrip().startswith("{"):
        try:
            fields = json.loads(target)
        except ValueError as error:
            raise OptionError(f"target {target} is not JSON: {error}", hint=EXAMPLES) from error
    else:
        kind, *options = target.split() or [""]
        pairs = (option.lstrip("-").partition("=") for option in options)
        fields = {"kind": kind, **{name: value for name, _, value in pairs}}
    fields = {"kind": "llvm", **fields}
    if fields["kind"] not in _READ:
        raise OptionError(f"target kind '{fields['kind']}' is not supported", hint=EXAMPLES)
    known = (*_READ[fields["kind"]], *_EXPORTED)
    if unknown := [name for name in fields if name not in known]:
        raise OptionError(f"target option '{unknown[0]}' is not known", hint=EXAMPLES)
    if not re.fullmatch("[1-9][0-9]*", str(fields.get("num-cores", 1))):
        raise OptionError(f"target option num-cores is '{fields['num-cores']}'", hint=EXAMPLES)
    return fields


def from_target(target: Any) -> Arch:
    """The machine that a TVM target names, without asking any hardware.

    `target` is a `tvm.target.Target`, its dict or JSON, or a string such as "llvm",
    "llvm -mcpu=znver4 -num-cores=8" or "cuda -arch=sm_90a". An "llvm" without mcpu is the lowest
    level of its instruction set, whose code runs everywhere; `resolve` takes this machine instead.
    """
    fields = target_fields(target)
    if fields["kind"] == "cuda":
        if "arch" not in fields:
            raise OptionError("a cuda target without -arch", hint=EXAMPLES)
        return cuda.from_name(str(fields["arch"]))
    return cpu.from_fields(fields)


def resolve(target: Any) -> Arch:
    """This machine for "llvm", "native" and "cuda", which name none; `from_target` for the rest."""
    if target == "native":
        return cpu.from_device()
    fields = target_fields(target)
    if fields["kind"] == "cuda":
        return cuda.from_fields(fields)
    # tvm.target.Target adds the triple of this machine to every target.
    foreign = not str(fields.get("mtriple", "")).startswith(platform.machine())
    if "mcpu" in fields or ("mtriple" in fields and foreign):
        return cpu.from_fields(fields)
    if fields.get("mattr"):
        raise OptionError("a target with -mattr needs a CPU to change", hint=EXAMPLES)
    device = cpu.from_device()
    return replace(device, cores=int(fields.get("num-cores", device.cores)))


def to_target(arch: Arch) -> dict[str, Any]:
    """The TVM target, as a dict, whose code uses all of `arch`."""
    return cuda.to_target(arch) if isinstance(arch, CudaArch) else cpu.to_target(arch)


def flags(target: Mapping[str, Any]) -> Iterator[str]:
    """A target the way the command line takes it: kind, then -key=value.

    What else the target of a GPU says follows from its arch.
    """
    for name in ("kind", "arch") if target["kind"] == "cuda" else target:
        value = target[name]
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        yield text if name == "kind" else f"-{name}={text}"
