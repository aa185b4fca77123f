"""What a child process runs in place of ``tvmext.api:compile_here``: small, or going wrong."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tvmext.build import CompileRequest
from tvmext.errors import ModelError, UnsupportedError, UnsupportedOp


def succeed(request: CompileRequest, report) -> None:
    print("printed on stdout", flush=True)
    print("printed on stderr", file=sys.stderr, flush=True)
    report("load", request.name)
    report("link")
    Path(request.output).write_text(request.to_json())


def raise_model_error(request: CompileRequest, report) -> None:
    raise ModelError("the model is bad", hint="take another")


def raise_unsupported(request: CompileRequest, report) -> None:
    raise UnsupportedError([UnsupportedOp("Foo", "my.domain", 3, "node_7", "no idea")], hint="wait")


def raise_unexpected(request: CompileRequest, report) -> None:
    report("schedule", "function fused_add")
    {}["missing"]


def leave(request: CompileRequest, report) -> None:
    Path(request.output).write_text("half")
    raise SystemExit(3)


def exit_at_once(request: CompileRequest, report) -> None:
    report("load")
    os._exit(9)


def segfault(request: CompileRequest, report) -> None:
    report("schedule", "function fused_add")
    Path(request.output).write_text("half")
    print("a last word", flush=True)
    ctypes.string_at(0)


def crash_in_code_generation(request: CompileRequest, report) -> None:
    """As LLVM does: the kernels are built together, so only a second look can name one."""
    _report_kernels(request, report)
    os.abort()


def fail_in_code_generation(request: CompileRequest, report) -> None:
    _report_kernels(request, report)
    raise ValueError("bad kernel")


def _report_kernels(request: CompileRequest, report) -> None:
    if request.one_by_one:
        report("build", "function innocent")
        report("build", "function culprit")
    else:
        report("build", "2 kernels")


def run_out_of_memory(request: CompileRequest, report) -> None:
    report("build", "function big")
    os.kill(os.getpid(), signal.SIGKILL)


def hang(request: CompileRequest, report) -> None:
    """Works for a minute, with a helper process, as the linker is one."""
    Path(request.output).write_text("half")
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    report("link", f"{os.getpid()} {helper.pid}")
    time.sleep(60)
