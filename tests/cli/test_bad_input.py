"""Bad and odd input: the right exit code, a message that helps, and no half-written file."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.cli import networks
from tests.cli.conftest import Call, Result
from tvmext.arch import cuda
from tvmext.errors import OptionError


def assert_told(result: Result, code: int, pattern: str) -> None:
    """The user's mistakes are explained in a few lines, on stderr, without a stack."""
    assert result.code == code, result.err
    assert result.out == ""
    assert re.search(pattern, result.err), result.err
    assert "error: " in result.err
    assert "Traceback" not in result.err and "Warning" not in result.err


@pytest.mark.parametrize("write", networks.BROKEN, ids=lambda write: write.__name__)
def test_a_broken_model_is_explained(
    tvmext: Call, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "model.onnx"
    write(path)
    assert_told(tvmext("compile", path, "-o", tmp_path / "out.so"), *networks.BROKEN[write])
    assert os.listdir(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["compile", "no-such-file.onnx", "-o", "{tmp}/a.so"], "no-such-file.onnx"),
        (["compile", "{tiny}", "-o", "{tmp}"], "is a directory"),
        (["compile", "{tiny}", "-o", "{tmp}/none/a.so"], "folder does not exist"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--dim", "batch"], "there is no '='"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--dim", "batch=two"], "not a size or a range"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--dim", "batch=9:1"], "range 9:1"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--dim", "depth=4"], "no dim 'depth'"),
        (
            ["compile", "{tiny}", "-o", "{tmp}/a.so", "--dim", "batch=1", "--dim", "batch=2"],
            "twice",
        ),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--input-shapes", "x:[2"], "cannot read 'x:"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--input-shapes", "z:[2,4]"], "no input 'z'"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--input-shapes", "x:[2,5]"], r"shape \[2, 5\]"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--input-shapes", "x:[2]"], r"shape \[2\]"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "-O", "7"], "opt_level is 7"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--dump-code", "cobol"], "cobol"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--target", "abacus"], "abacus"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--target", "llvm -mcpu=abacus"], "abacus"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--disabled-pass", "Nothing"], "Nothing"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--pass-config", "no.such=1"], r"no\.such"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--records", "{garbage}"], "line 1: not JSON"),
        (["compile", "{garbage}", "-o", "{tmp}/a.so"], "is a library, not a model"),
        (["verify", "{tiny}", "{garbage}", "--target", "cuda"], "is compiled already"),
        (["compile"], "Missing argument 'MODEL'"),
        (["compile", "{tiny}", "--frobnicate"], "--frobnicate"),
        (["conjure"], "conjure"),
        (["run", "no-such-file.so"], "no-such-file.so"),
        (["compile", "{tiny}", "-o", "{tmp}/a.so", "--dim", "=3"], "there is no name"),
        (["run", "{garbage}"], "garbage.so"),
        (["inspect", "{garbage}"], "garbage.so"),
        (["inspect", "no-such-file.onnx"], "no-such-file.onnx"),
    ],
)
def test_a_wrong_command_line_is_explained(
    tvmext: Call, tiny: Path, tmp_path: Path, arguments: list[str], pattern: str
) -> None:
    garbage = tmp_path / "garbage.so"
    garbage.write_bytes(b"\x7fELF" + bytes(100))
    names = {"tiny": tiny, "tmp": tmp_path, "garbage": garbage}
    assert_told(tvmext(*(argument.format(**names) for argument in arguments)), 2, pattern)
    assert os.listdir(tmp_path) == ["garbage.so"]


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_the_model_goes_first(tvmext: Call, tiny: Path, tiny_library: Path, verb: str) -> None:
    result = tvmext(verb, tiny_library, tiny)
    assert_told(result, 2, rf"is a library.*\n.*the model goes first: \S*{tiny.name}")


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (["--reference", "nonsense"], "'nonsense' is not a reference"),
        (["--reference", "none.npz"], "expected outputs from 'none.npz'"),
        (["--inputs", "none.npz"], "inputs from 'none.npz'"),
        (["--dim", "batch=1,x"], "'1,x' is not a list of sizes"),
    ],
)
def test_verify_refuses_before_it_compiles(
    tvmext: Call, tiny: Path, options: list[str], pattern: str
) -> None:
    result = tvmext("verify", tiny, *options)
    assert_told(result, 2, pattern)
    assert "load" not in result.err


@pytest.mark.parametrize(
    ("inputs", "pattern"),
    [
        ({"z": np.zeros((2, 4), np.float32)}, "unknown inputs: z"),
        ({"x": np.zeros((2, 5), np.float32)}, "'x'.*5|5.*'x'"),
        ({"x": np.zeros(4, np.float32)}, "'x'"),
        ({"x": np.zeros((2, 4), np.int64)}, "'x'.*int64"),
    ],
)
def test_wrong_inputs_are_explained(
    tvmext: Call,
    tiny_library: Path,
    tmp_path: Path,
    inputs: dict[str, np.ndarray],
    pattern: str,
) -> None:
    np.savez(tmp_path / "x.npz", **inputs)
    outputs = tmp_path / "y.npz"
    result = tvmext("run", tiny_library, "-i", tmp_path / "x.npz", "-o", outputs)
    assert_told(result, 2, pattern)
    assert not outputs.exists()


@pytest.mark.parametrize("verb", ["run", "bench", "verify"])
def test_sizes_that_the_inputs_do_not_have_are_refused(
    tvmext: Call, tiny: Path, tiny_library: Path, tmp_path: Path, verb: str
) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 4), np.float32))
    named = [tiny, tiny_library] if verb == "verify" else [tiny_library]
    result = tvmext(verb, *named, "-i", tmp_path / "x.npz", "--dim", "batch=3")
    assert_told(result, 2, "dim 'batch' is given as 3, but input 'x' has size 2 on axis 0")


@pytest.mark.parametrize("mode", ["random", "zeros"])
def test_inputs_beyond_memory_are_refused(tvmext: Call, tiny_library: Path, mode: str) -> None:
    result = tvmext("run", tiny_library, "--dim", f"batch={10**12}", "--fill-mode", mode)
    assert_told(result, 2, r"takes 1\.6e\+04 GB.*\n  try: smaller sizes of its dims: x: float32")


def test_what_could_not_run_here_is_not_compiled(
    tvmext: Call, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise OptionError("this machine has no NVIDIA driver")

    monkeypatch.setattr(cuda, "from_device", none)
    result = tvmext("verify", tiny, "--target", "cuda", "--arch", "sm_80")
    assert_told(result, 2, "--target cuda: this machine has no NVIDIA driver.*\n  try: tvmext comp")
    assert "load" not in result.err


def test_a_file_of_inputs_runs_no_code(tvmext: Call, tiny_library: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return open, (str(tmp_path / "pwned"), "w")

    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Payload()))
    objects = np.empty(1, dtype=object)
    objects[0] = Payload()
    np.savez(tmp_path / "objects.npz", x=objects)
    for name in ("plain.npz", "objects.npz", "missing.npz"):
        assert_told(tvmext("run", tiny_library, "-i", tmp_path / name), 2, name)
    assert not (tmp_path / "pwned").exists()


def on_a_small_disk(mount_options: str, folder: Path, *command: object) -> Result:
    """Run a command with a file system of its own mounted at `folder`, in its own namespace."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare, to mount a small disk")
    script = f'mount -t tmpfs -o {mount_options} none "$0" && "$@"; code=$?; ls -A "$0"; exit $code'
    wrapped = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(folder)]
    probe = subprocess.run([*wrapped, "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("may not mount a small disk here")
    done = subprocess.run([*wrapped, *map(str, command)], capture_output=True, text=True)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("mount_options", "pattern"),
    [("ro,size=1m", "file system is read-only"), ("size=8k", "disk is full")],
    ids=["read-only", "full"],
)
@pytest.mark.parametrize("verb", ["compile", "run"])
def test_an_output_that_cannot_be_written_is_explained(
    tiny: Path, tiny_library: Path, tmp_path: Path, verb: str, mount_options: str, pattern: str
) -> None:
    out = tmp_path / ("out.so" if verb == "compile" else "out.npz")
    given = [tiny] if verb == "compile" else [tiny_library, "--dim", "batch=1000"]
    call = [sys.executable, "-m", "tvmext", verb, *given, "-o", out]
    assert_told(on_a_small_disk(mount_options, tmp_path, *call), 2, f"(?i){pattern}")


def test_ctrl_c_leaves_nothing_behind(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tvmext", "compile", str(tiny), "-o", "out.so"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "TVMEXT_CACHE": "off"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    process.stderr.readline()  # the compilation has begun
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 130
    assert rest.endswith("interrupted\n")
    assert "Traceback" not in rest
    assert workers
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert os.listdir(tmp_path) == []


def test_a_full_disk_behind_stdout_is_explained(tiny_library: Path) -> None:
    command = [sys.executable, "-m", "tvmext", "inspect", str(tiny_library)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2,
        "error: cannot read or write: no space left on device\n",
    )


def test_a_reader_that_goes_away_is_no_error(tiny_library: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tvmext", "inspect", str(tiny_library), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 141
