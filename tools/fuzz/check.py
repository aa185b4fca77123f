"""One mutant in a worker: compiled, refused, or a finding."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmext import api
from tvmext.build import CompileRequest
from tvmext.errors import TvmextError
from tvmext.frontends import load
from tvmext.options import Options

from .. import forked
from .mutants import Mutant

MACHINE = ("/proc/cpuinfo", "/sys/devices/system/cpu", os.devnull)
"""What tells about the machine, and may be read."""
CLEAN = (2, 3)
"""Exit codes of a refusal."""
OPTIMISED = 20
"""One mutant in so many is compiled with -O2, the others with -O0."""
MEMORY = 3 << 29
"""Bytes that a worker may grow by over one mutant."""
REASON_CHARS = 400


@dataclass(frozen=True)
class Result:
    """`status` is compiled, imported, refused; or crash, timeout, memory, exception, outside."""

    number: int
    entry: str
    mutation: str
    status: str
    reason: str
    seconds: float

    @property
    def finding(self) -> bool:
        return self.status not in ("compiled", "imported", "refused")


class Checker:
    """Checks the mutants of a run, whose files are below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._below = folder
        self._opened: list[str] = []
        self._folder = Path()

    def begin(self) -> None:
        """Lay out the folder of this worker, and listen to what is opened."""
        self._folder = Path(os.path.realpath(tempfile.mkdtemp(dir=self._below)))
        lay_out(self._folder)
        os.environ["CXX"] = "true"  # nothing of the model is left for the linker to fall over
        os.chdir(self._folder / "here")
        allowed = [self._folder / "model", self._folder / "out", sys.prefix, sys.base_prefix]
        allowed += [Path(__file__).parents[2], "/usr/lib", "/usr/share", "/lib", *MACHINE]
        roots = tuple(f"{os.path.realpath(root)}/" for root in allowed)

        def listen(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(arguments[0], str | bytes):
                path = os.path.realpath(os.fsdecode(arguments[0]).partition("\0")[0])
                if not f"{path}/".startswith(roots):
                    self._opened.append(path)

        sys.addaudithook(listen)

    def check(self, mutant: Mutant) -> Result:
        """Run one mutant in this process."""
        data, mutation = mutant.make()
        path = self._folder / "model" / "m.onnx"
        path.write_bytes(data)
        before, start = _reset_peak(), time.process_time()
        self._opened.clear()
        status, reason = self._outcome(path, mutant)
        seconds = round(time.process_time() - start, 3)
        opened = list(self._opened)
        grown = _peak() - before
        if grown > MEMORY:
            status, reason = "memory", f"{grown >> 20} MiB; {status}: {reason}"
        if opened:
            status, reason = "outside", ", ".join(opened)
        return Result(mutant.number, mutant.entry.name, mutation, status, reason, seconds)

    def _outcome(self, path: Path, mutant: Mutant) -> tuple[str, str]:
        each, number = mutant.entry.compiled, mutant.number
        try:
            if not each or number % each:
                load(str(path), name="m.onnx")
                return "imported", ""
            level = 0 if number % OPTIMISED else 2
            request = CompileRequest(
                model=str(path),
                output=str(self._folder / "out" / "m.so"),
                options=Options(opt_level=level),
                name="m.onnx",
            )
            api.compile_here(request, lambda *_: None)
            return "compiled", f"-O{level}"
        except Exception as error:
            if isinstance(error, TvmextError) and error.exit_code in CLEAN:
                return "refused", f"{type(error).__name__}: {_one_line(error)}"
            memory = isinstance(error, MemoryError) or "bad_alloc" in str(error)
            return "memory" if memory else "exception", f"{_one_line(error)} at {_place(error)}"


def ended(mutant: Mutant, end: forked.End) -> Result:
    """What the death of a worker says about its mutant."""
    mutation = mutant.make()[1]
    reason = f"exit {end.exit_code}"
    return Result(mutant.number, mutant.entry.name, mutation, end.status, reason, end.seconds)


def lay_out(folder: Path) -> None:
    """The model's folder, and around it pipes with the names of data files: whoever opens one, in
    whatever language, waits for ever."""
    for name in ("model/folder", "out", "here", "outside"):
        (folder / name).mkdir(parents=True)
    (folder / "model" / "weights.bin").write_bytes(bytes(4096))
    for place in ("", "here", "outside"):
        os.mkfifo(folder / place / "weights.bin")
    (folder / "model" / "link.bin").symlink_to("../outside/weights.bin")


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """The most memory held since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def _one_line(error: Exception) -> str:
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    name = "" if isinstance(error, TvmextError) else f"{type(error).__name__}: "
    return f"{name}{text}"[:REASON_CHARS]


def _place(error: Exception) -> str:
    """The last lines of ours that it passed."""
    root = str(Path(__file__).parents[2])
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(root)]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[::-1][:4])
