"""CUDA kernels without a GPU: the source that TVM generates, compiled by g++ and run by fibers.

    with emulated():              tvm.cuda() is this CPU's memory, launches run in emulator.h
        executable = tvm.compile(module, cuda_target)

Only the device code is replaced: the host code, with its grid sizes and arguments, is the one that
runs on a GPU.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi

from tvmext.arch.cuda_driver import toolkit

HERE = Path(__file__).parent
CACHE = Path(tempfile.gettempdir()) / f"tvmext-emulator-{os.getuid()}"

Mutation = Callable[[str], str]
_mutation: list[Mutation] = []


@contextmanager
def emulated(order: int = 0, mutation: Mutation | None = None) -> Iterator[None]:
    """CUDA modules that are built or loaded inside run on the CPU.

    `order` is that in which threads take turns (see emulator.h). `mutation` changes the device
    code first: what a test would have to notice.
    """
    _install()
    os.environ["TVMEXT_EMULATOR_ORDER"] = str(order)
    if mutation:
        _mutation.append(mutation)
    try:
        yield
    finally:
        _mutation.clear()


def _install() -> None:
    replaced = {
        "ffi.Module.create.cuda": _create,
        "device_api.cuda": tvm.get_global_func("device_api.cpu"),
        "__tvm_set_device": lambda *_: None,
    }
    for name, function in replaced.items():
        tvm_ffi.register_global_func(name, function, override=True)


def _create(code: Any, _format: str, functions: Mapping[str, Any], _sources: Any) -> Any:
    """A module with the kernels of `code`; TVM's CUDA code generation ends here."""
    source = bytes(code).decode()
    for change in _mutation:
        changed = change(source)
        assert changed != source, "the mutation found nothing to change"
        source = changed
    return tvm.runtime.load_module(str(_library(translated(source, functions))))


def translated(source: str, functions: Mapping[str, Any]) -> str:
    """C++ for emulator.h: shared memory from the emulator, and an entry per kernel."""
    number = iter(range(1, 1000))
    text = _ASSEMBLY.sub(_instruction, source.replace("#include <cuda.h>", ""))
    text = re.sub(
        r"extern __shared__ (?:alignas\(\d+\) |__align__\(\d+\) )?([\w ]+?) (\w+)\[\];",
        r"\1* \2 = (\1*)emu::shared(0, 232448);",
        text,
    )
    text = re.sub(
        r"__shared__ (?:alignas\(\d+\) |__align__\(\d+\) )?([\w ]+?) (\w+)\[([^\]]+)\];",
        lambda m: (
            f"{m[1]}* {m[2]} = ({m[1]}*)emu::shared({next(number)}, sizeof({m[1]}) * ({m[3]}));"
        ),
        text,
    )
    head = r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)'
    kernels = re.findall(head + r"\(([^;{]*)\) \{", text)
    entries = [_entry(name, arguments, functions[name]) for name, arguments in kernels]
    return "\n".join(['#include "emulator.h"', _RUNTIME, text, *entries])


_ASSEMBLY = re.compile(r'asm volatile\("([^"]*);"((?:[^;"]|"[^"]*")*)\);')
_OPERAND = re.compile(r'"[^"]*?[frl]"\(((?:[^()]|\([^()]*\))*)\)')


def _instruction(assembly: re.Match[str]) -> str:
    """A call of emulator_ptx.h for a line of assembly: operands as they stand in the line."""
    name, _, places = assembly[1].partition(" ")
    operands = _OPERAND.findall(assembly[2])
    words = re.findall(r"%?\w+", places)
    given = [operands[int(w[1:])] if w.startswith("%") else w for w in words]
    return f"{name.replace('.', '_')}({', '.join(given)});"


_RUNTIME = """\
extern "C" void TVMFFIErrorSetRaisedFromCStr(const char*, const char*);
extern "C" int tvmext_emulator_order() {
  const char* order = getenv("TVMEXT_EMULATOR_ORDER");
  return order ? atoi(order) : 0;
}"""


def _entry(name: str, arguments: str, info: Any) -> str:
    """What TVM's host code calls: arguments of the kernel, then the sizes of grid and block."""
    types = [re.sub(r"__restrict__|const|__grid_constant__", "", a) for a in arguments.split(",")]
    types = [re.match(r"\s*(.+?)\s*\w+\s*$", a)[1] for a in types if a.strip()]  # type: ignore[index]
    tags = {
        str(tag): f"(unsigned)a[{len(types) + i}].i" for i, tag in enumerate(info.launch_param_tags)
    }
    sizes = {
        kind: ", ".join(tags.get(f"{kind}.{axis}", "1") for axis in "xyz")
        for kind in ("blockIdx", "threadIdx")
    }
    values = ", ".join(f"({kind})a[{i}].{_member(kind)}" for i, kind in enumerate(types))
    return f"""
static void call_{name}(void* raw) {{ emu::Any* a = (emu::Any*)raw; {name}({values}); }}
extern "C" int __tvm_ffi_{name}(void*, const emu::Any* a, int32_t, emu::Any* result) {{
  std::string error = emu::run(dim3({sizes["blockIdx"]}), dim3({sizes["threadIdx"]}),
                               tvmext_emulator_order(), call_{name}, (void*)a);
  if (!error.empty()) {{
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", ("{name}: " + error).c_str());
    return -1;
  }}
  *result = emu::Any();
  return 0;
}}"""


def _member(kind: str) -> str:
    if kind.endswith("*"):
        return "p"
    return "f" if kind in ("float", "double") else "i"


def _library(source: str) -> Path:
    """`source` compiled; the same text is compiled once."""
    header = "".join(path.read_text() for path in sorted(HERE.glob("*.h")))
    name = hashlib.sha256((header + source).encode()).hexdigest()[:24]
    CACHE.mkdir(exist_ok=True)
    library = CACHE / f"{name}.so"
    if library.exists():
        return library
    wheels = toolkit()
    assert wheels is not None
    code, unfinished = CACHE / f"{name}.{os.getpid()}.cpp", CACHE / f"{name}.{os.getpid()}.so"
    code.write_text(source)
    command = ["g++", "-O1", "-std=c++17", "-w", "-fpermissive", "-fno-strict-aliasing", "-shared"]
    command += ["-fPIC", f"-I{HERE}", f"-I{wheels / 'include'}", "-o", str(unfinished), str(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"g++ refused the generated code:\n{done.stderr[:3000]}"
    unfinished.replace(library)
    return library
