"""Artifacts: metadata read without loading, refusals, and files that are whole or not there."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tvm.relax import op

from tests.tvmext.models import spec, write
from tvmext import artifact
from tvmext.arch import from_device
from tvmext.artifact import (
    FORMAT_VERSION,
    ArtifactMetadata,
    check_runs_here,
    read_metadata,
    write_atomically,
)
from tvmext.build import files
from tvmext.errors import ArtifactError
from tvmext.frontends.dims import Dim, Guard, parse
from tvmext.options import Options

ROOT = Path(__file__).parents[2]

METADATA = ArtifactMetadata(
    inputs=(
        spec("x", "float32", parse("batch"), 3, parse("4*(h//4) + past")),
        spec("scalar", "int64"),
    ),
    outputs=(spec("y/ü", "bool", parse("min(512, batch)")),),
    target={"kind": "llvm", "mcpu": "x86-64", "mattr": ["-prefer-256-bit"]},
    dims={"batch": Dim("batch", 1, 64, 8, label="N/1"), "h": Dim("h"), "past": Dim("past")},
    guards=(Guard(4, "divides", parse("h"), "node 'Reshape_1'"),),
    options=Options(1, disabled_pass=("FuseOps",), pass_config=(("a", 1),)),
    source="model.onnx",
    model_sha256="ab" * 32,
    decisions={"fused_add": {"rule": "elementwise", "decision": {"tile": [8, 32]}}},
    weight_outputs=("y/ü",),
    versions={"tvm": "0.27.0"},
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "model.so"
    x = spec("x", "float32", parse("n"), 4)
    return write(path, [x], [spec("y", "float32", parse("n"), 4)], lambda x: op.add(x, x))


def test_metadata_survive_json() -> None:
    read = ArtifactMetadata.from_json(METADATA.to_json())
    assert read.versions.keys() == {"tvm", "tvmext"}
    assert ArtifactMetadata(**{**vars(read), "versions": METADATA.versions}) == METADATA


def test_metadata_are_read_without_loading(library: Path) -> None:
    code = f"""
import sys
from tvmext.artifact import read_metadata
print(*read_metadata({str(library)!r}).inputs)
assert "tvm" not in sys.modules
assert {library.name!r} not in open("/proc/self/maps").read()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("x: float32[n, 4]\n", "")


def test_metadata_survive_strip(library: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped.so"
    subprocess.run(["strip", "-o", stripped, library], check=True)
    assert read_metadata(stripped) == read_metadata(library)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a compiled library: it is cut short"),
        (b"\x7fELF", "not a compiled library: it is cut short"),
        (os.urandom(5000), "not a compiled library"),
        (b"#!/bin/sh\n" + b"echo\n" * 100, "not a compiled library: it is not a 64-bit ELF file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read_metadata(path)


def test_another_library_is_refused() -> None:
    with pytest.raises(ArtifactError, match="was not written by tvmext"):
        read_metadata(Path(sys.modules["_struct"].__file__ or ""))


def test_a_file_that_is_cut_short_is_refused(library: Path, tmp_path: Path) -> None:
    whole = library.read_bytes()
    path = tmp_path / "model.so"
    for length in (10, 64, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="not a compiled library"):
            read_metadata(path)


def test_damaged_metadata_are_refused(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(library.read_bytes().replace(b'"inputs"', b'"inPuts"'))
    with pytest.raises(ArtifactError, match=r"metadata of .* are damaged"):
        read_metadata(path)


def test_a_newer_format_is_refused(library: Path, tmp_path: Path) -> None:
    now, later = (f'"format_version": {v}'.encode() for v in (FORMAT_VERSION, FORMAT_VERSION + 1))
    path = tmp_path / "model.so"
    path.write_bytes(library.read_bytes().replace(now, later))
    with pytest.raises(ArtifactError, match=f"format is version {FORMAT_VERSION + 1}") as caught:
        read_metadata(path)
    assert "install tvmext" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message"), [("missing.so", "No such file"), ("", "Is a directory")]
)
def test_files_that_are_not_there(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_metadata(tmp_path / name)


def with_target(**target: object) -> ArtifactMetadata:
    return ArtifactMetadata((), (), {"kind": "llvm", **target})


def test_code_for_this_cpu_runs_here() -> None:
    check_runs_here(with_target(mcpu=from_device().mcpu), "model.so")
    check_runs_here(with_target(mcpu="x86-64"), "model.so")


def test_code_for_a_larger_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small = artifact.from_target({"kind": "llvm", "mcpu": "x86-64-v2"})
    monkeypatch.setattr(artifact, "from_device", lambda: small)
    for target, missing in (
        ({"mcpu": "x86-64-v4"}, "AVX-512"),
        ({"mcpu": "x86-64-v2", "mattr": ["+avx512vnni"]}, "avx512vnni"),
    ):
        with pytest.raises(ArtifactError, match=f"a CPU with .*{missing}"):
            check_runs_here(with_target(**target), "model.so")
    with pytest.raises(ArtifactError, match="compiled for aarch64"):
        check_runs_here(with_target(mtriple="aarch64-linux-gnu"), "model.so")
    check_runs_here(with_target(mcpu="x86-64-v2"), "model.so")


def save(path: Path, content: str) -> None:
    with write_atomically(path) as unfinished:
        unfinished.write_text(content)


def test_a_file_is_written_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    for content in ("old", "new"):
        save(path, content)
        assert path.read_text() == content
        assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    save(path, "old")
    with pytest.raises(ZeroDivisionError), write_atomically(path) as unfinished:
        unfinished.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


WRITER = """
import sys, time
from pathlib import Path
from tvmext.artifact import write_atomically
count = 0
while True:
    count += 1
    with write_atomically(Path(sys.argv[1])) as unfinished, unfinished.open("w") as file:
        for _ in range(100):
            file.write(f"{count:07d}" * 100)
            file.flush()
    print(flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    for attempt in range(8):
        command = [sys.executable, "-c", WRITER, path]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            writer.stdout.readline()
            time.sleep(attempt * 0.003)
            writer.send_signal(signal.SIGKILL)
        content = path.read_text()
        assert len(content) == 70_000
        assert content == content[:7] * 10_000


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing/model.so", "its folder does not exist"),
        ("file/model.so", "its folder is a file"),
        ("folder", "it is a folder"),
        ("n" * 300, "its name is too long"),
        ("/proc/model.so", "cannot write /proc/model.so"),
        ("/sys/model.so", "cannot write /sys/model.so"),
    ],
)
def test_places_that_cannot_be_written(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=message) as caught:
        save(tmp_path / place, "content")
    assert caught.value.hint


NOBODY = 65534


def test_a_folder_without_permission(tmp_path: Path) -> None:
    """Root may write everywhere, so a child gives its rights up first."""
    tmp_path.chmod(0o555)
    code = f"""
import os, sys
sys.path[:] = {sys.path!r}
from tvmext.artifact import write_atomically
if os.getuid() == 0:
    os.setuid({NOBODY})
try:
    with write_atomically({str(tmp_path / "model.so")!r}):
        pass
except Exception as error:
    print(type(error).__name__, error.message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.startswith("ArtifactError")
    assert "no permission" in done.stdout


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """The limit on file sizes stops a write half-way, as a full disk does."""
    path = tmp_path / "model.so"
    save(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(ArtifactError, match="the file would be larger than is allowed"):
            save(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk(tmp_path: Path) -> None:
    """/dev/full answers every write with ENOSPC."""
    with (
        pytest.raises(ArtifactError, match="the disk is full") as caught,
        files.naming(tmp_path / "model.so"),
        open("/dev/full", "w") as file,
    ):
        file.write("content")
    assert "free some space" in caught.value.hint


def test_a_full_file_system(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        path = tmp_path / "model.so"
        save(path, "old")
        with pytest.raises(ArtifactError, match="the disk is full"):
            save(path, "x" * 1_000_000)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]
    finally:
        subprocess.run(["umount", tmp_path], check=True)
