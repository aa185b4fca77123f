"""CUDA kernels without a GPU: the source that TVM generates, compiled by g++ and run by fibers.

    with emulated():              tvm.cuda() is this CPU's memory, launches run in emulator.h
        executable = tvm.compile(module, cuda_target)

Only the device code is replaced: the host code, with its grid sizes and arguments, is the one that
runs on a GPU.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi

from tvmext.arch.cuda_driver import toolkit

HERE = Path(__file__).parent
COMPILER = ("g++", "-O1", "-std=c++17", "-w", "-fpermissive", "-fno-strict-aliasing", "-fPIC")
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
        "runtime.cuTensorMapEncodeTiled": _encode,
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
        r"extern __shared__ (?:alignas|__align__)\((\d+)\) ([\w ]+?) (\w+)\[\];",
        r"\2* \3 = (\2*)emu::shared(0, emu::dynamic_bytes, \1);",
        text,
    )
    text = re.sub(
        r"__shared__ (?:alignas\(\d+\) |__align__\(\d+\) )?([\w ]+?) (\w+)\[([^\]]+)\];",
        lambda m: (
            f"{m[1]}* {m[2]} = "
            f"({m[1]}*)emu::shared({next(number)}, sizeof({m[1]}) * ({m[3]}), 128);"
        ),
        text,
    )
    text = re.sub(r"\*\((\w+)\*\)\(", r"*emu::aligned<\1>(", text)
    head = r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)'
    kernels = re.findall(head + r"\(([^;{]*)\) \{", text)
    entries = [_entry(name, arguments, functions[name]) for name, arguments in kernels]
    return "\n".join(['#include "emulator.h"', _RUNTIME, text, *entries])


_ASSEMBLY = re.compile(r'asm volatile\("([^"]*);(?: \})?"((?:[^;"]|"[^"]*")*)\);')
_PREDICATE = re.compile(
    r"\{ \.reg \.pred p; (?:setp\.ne\.b32 p, (\d), 0; )?(.*?)(?:; selp\.u32 (%\d+), 1, 0, p)?$"
)
_PRODUCT = re.compile(r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k\d+\.(\w+)\.(\w+)\.(\w+)")
_TYPES = {
    "f16": "__half",
    "bf16": "__nv_bfloat16",
    "tf32": "emu::tf32",
    "s8": "int8_t",
    "u8": "uint8_t",
    "e4m3": "__nv_fp8_e4m3",
    "e5m2": "__nv_fp8_e5m2",
}
_OPERAND = re.compile(r'"[^"]*?[frl]"\(((?:[^()]|\([^()]*\))*)\)')


def _instruction(assembly: re.Match[str]) -> str:
    """A call of emulator_ptx.h for a line of assembly: operands as they stand in the line."""
    line = assembly[1]
    if within := _PREDICATE.match(line):
        # The predicate is a number that goes in, or one that comes out.
        line = re.sub(r"\bp\b", within[1] or within[3], within[2])
    name, _, places = line.partition(" ")
    operands = _OPERAND.findall(assembly[2])
    words = [w for w in re.findall(r"%?\w+", places) if w != "_"]
    given = [operands[int(w[1:])] if w.startswith("%") else w for w in words]
    if product := _PRODUCT.fullmatch(name):
        return _product(product, given)
    name = re.sub(r"[.:]+", "_", name)
    if name.startswith("cp_async_bulk_tensor"):
        target, tensor, *at, barrier = given
        return f"cp_async_bulk_tensor({', '.join([target, tensor, barrier, *at])});"
    return f"{name}({', '.join(given)});"


def _product(name: re.Match[str], given: list[str]) -> str:
    """A product of warpgroups: registers, two descriptors, and after a scale what is turned."""
    cols, kind, lhs, rhs = name.groups()
    registers, (a, b, scale, *more) = given[: int(cols) // 2], given[int(cols) // 2 :]
    assert scale == "1", "sums are added to"
    turned = more[-2:] if len(more) == 4 else ["0", "0"]
    sums = "float" if kind == "f32" else "int"
    places = ", ".join(f"&{one}" for one in registers)
    types = f"{_TYPES[lhs]}, {_TYPES[rhs]}, {sums}"
    return f"emu::wgmma<{types}>({{{places}}}, {', '.join([a, b, *turned])});"


_RUNTIME = """\
extern "C" void TVMFFIErrorSetRaisedFromCStr(const char*, const char*);
extern "C" int tvmext_emulator_order() {
  const char* order = getenv("TVMEXT_EMULATOR_ORDER");
  return order ? atoi(order) : 0;
}"""


_TENSOR_MAP = 1  # ArgExtraTags.kTensorMap: a parameter of 128 bytes, by value


def _entry(name: str, arguments: str, info: Any) -> str:
    """What TVM's host code calls: arguments of the kernel, then the sizes of grid and block."""
    types = [re.sub(r"__restrict__|const|__grid_constant__", "", a) for a in arguments.split(",")]
    types = [re.match(r"\s*(.+?)\s*\w+\s*$", a)[1] for a in types if a.strip()]  # type: ignore[index]
    maps = [kind == "CUtensorMap" for kind in types]
    assert maps == [tag == _TENSOR_MAP for tag in info.arg_extra_tags], "the launcher is not told"
    tags = {
        str(tag): f"(unsigned)a[{len(types) + i}].i" for i, tag in enumerate(info.launch_param_tags)
    }
    sizes = {
        kind: ", ".join(tags.get(f"{kind}.{axis}", "1") for axis in "xyz")
        for kind in ("blockIdx", "threadIdx")
    }
    values = ", ".join(_argument(kind, i) for i, kind in enumerate(types))
    return f"""
static void call_{name}(void* raw) {{ emu::Any* a = (emu::Any*)raw; {name}({values}); }}
extern "C" int __tvm_ffi_{name}(void*, const emu::Any* a, int32_t, emu::Any* result) {{
  emu::dynamic_bytes = {tags.get("tirx.use_dyn_shared_memory", "0")};
  std::string error = emu::run(dim3({sizes["blockIdx"]}), dim3({sizes["threadIdx"]}),
                               tvmext_emulator_order(), call_{name}, (void*)a);
  if (!error.empty()) {{
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", ("{name}: " + error).c_str());
    return -1;
  }}
  *result = emu::Any();
  return 0;
}}"""


def _argument(kind: str, i: int) -> str:
    if kind == "CUtensorMap":
        return f"*(CUtensorMap*)a[{i}].p"
    member = "p" if kind.endswith("*") else "f" if kind in ("float", "double") else "i"
    return f"({kind})a[{i}].{member}"


def _encode(tensor_map: Any, dtype: Any, rank: int, base: Any, *numbers: int) -> None:
    """Stands for the driver's cuTensorMapEncodeTiled: what it demands, and CUtensorMap's fields."""
    given = iter(numbers)
    sizes, strides, box, steps = (
        [next(given) for _ in range(n)] for n in (rank, rank - 1, rank, rank)
    )
    interleave, swizzle, _promotion, fill, *other = given
    element = tvm.DataType(str(dtype)).bits // 8
    assert tensor_map.value % 64 == 0
    assert base.value % 16 == 0
    assert all(0 < n <= 1 << 32 for n in sizes)
    assert all(n % 16 == 0 and n < 1 << 40 for n in strides)
    assert all(0 < n <= 256 for n in box)
    assert set(steps) == {1}
    assert interleave == fill == 0
    assert other in ([], [11])
    assert not other or str(dtype) == "float32"
    width = 16 << swizzle
    assert swizzle in (1, 2, 3)
    assert box[0] * element <= width
    fields = struct.pack(
        "=10Q12I",
        *(base.value, *sizes, *[1] * (5 - rank), *strides, *[0] * (5 - rank)),
        *(*box, *[1] * (5 - rank), rank, element, width, len(other), 0, 0, 0),
    )
    ctypes.memmove(tensor_map.value, fields, len(fields))


def _library(source: str) -> Path:
    """`source` compiled; the same text is compiled once."""
    header = _precompiled()
    name = hashlib.sha256((header.name + source).encode()).hexdigest()[:24]
    library = CACHE / f"{name}.so"
    if not library.exists():
        code = CACHE / f"{name}.{os.getpid()}.cpp"
        code.write_text(source)
        _compile(["-shared", f"-I{header}", f"-I{HERE}", str(code)], library)
    return library


@cache
def _precompiled() -> Path:
    """A folder with emulator.h as g++ keeps it when it has read it: half of a kernel's time."""
    wheels = toolkit()
    assert wheels is not None
    text = "".join(path.read_text() for path in sorted(HERE.glob("*.h")))
    name = hashlib.sha256(f"{wheels}{COMPILER}{text}".encode()).hexdigest()[:24]
    folder = CACHE / f"{name}.headers"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "emulator.h.gch"
    if not made.exists():
        _compile(["-x", "c++-header", str(HERE / "emulator.h")], made)
    return folder


def _compile(options: Sequence[str], result: Path) -> None:
    """Run g++; another process may be making the same file."""
    wheels = toolkit()
    assert wheels is not None
    unfinished = result.with_name(f"{os.getpid()}.{result.name}")
    command = [*COMPILER, f"-I{wheels / 'include'}", "-o", str(unfinished), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"g++ refused the generated code:\n{done.stderr[:3000]}"
    unfinished.replace(result)
