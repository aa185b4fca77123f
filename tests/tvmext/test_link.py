"""Linking: weights are data of the library, and plain TVM loads the result."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import ml_dtypes  # noqa: F401  gives NumPy the dtype bfloat16
import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op

from tests.tvmext.models import build, lower, spec, write
from tvmext.build import link as linking
from tvmext.build.kernels import METADATA_FUNCTION
from tvmext.build.link import find_compiler, link
from tvmext.build.results import results_in_weights
from tvmext.build.weights import WEIGHT, detach
from tvmext.errors import ArtifactError, InternalError, ToolchainError

BIG = (64, 32)
X = spec("x", "float32", *BIG)
Y = spec("y", "float32", *BIG)


def constant(array: np.ndarray) -> relax.Expr:
    return relax.const(tvm.runtime.tensor(array))


def random(shape: tuple[int, ...] = BIG, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def run(path: Path, *arrays: np.ndarray) -> np.ndarray:
    """With plain TVM: nothing of tvmext is used."""
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    return machine["main"](*map(tvm.runtime.tensor, arrays)).numpy()


def test_weights_leave_the_executable_and_come_back(tmp_path: Path) -> None:
    first, second, small = random(), random(seed=1), random((1, 32), seed=2)

    def body(x):
        return op.multiply(op.add(op.add(x, constant(first)), constant(small)), constant(second))

    executable = build([X], [Y], body)
    assert len(executable.weights) == 2
    link(executable, tmp_path / "m.so")
    x = random(seed=3)
    np.testing.assert_array_equal(run(tmp_path / "m.so", x), (x + first + small) * second)
    assert [path.name for path in tmp_path.iterdir()] == ["m.so"]


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    weight = random()
    executable = build(
        [X], [Y], lambda x: op.multiply(op.add(x, constant(weight)), constant(weight.copy()))
    )
    assert len(executable.weights) == 1
    link(executable, tmp_path / "m.so")
    np.testing.assert_array_equal(run(tmp_path / "m.so", weight), (weight + weight) * weight)


def test_equal_bytes_of_another_dtype_or_shape_are_another_weight() -> None:
    zeros = np.zeros(BIG, np.float32)
    mod = lower(
        [X],
        lambda x: [
            op.add(x, constant(zeros)),
            op.add(op.reshape(x, (32, 64)), constant(zeros.reshape(32, 64))),
            op.add(op.astype(x, "int32"), constant(zeros.view(np.int32))),
        ],
    )
    _, weights = detach(mod)
    assert [(tuple(w.shape), str(w.dtype)) for w in weights] == [
        ((64, 32), "float32"),
        ((32, 64), "float32"),
        ((64, 32), "int32"),
    ]


def test_weights_are_used_where_they_are_mapped(tmp_path: Path) -> None:
    """Loading and running takes no memory for weights but the pages of the file that are read."""
    weight = random((1000, 5000))
    write(
        tmp_path / "m.so",
        [spec("i", "int64", 2)],
        [spec("y", "float32", 2, 5000)],
        lambda i: op.take(constant(weight), i, axis=0),
    )
    code = f"""
import numpy as np, re, tvm
from tvm import relax
def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
before = own()
machine = relax.VirtualMachine(tvm.runtime.load_module({str(tmp_path / "m.so")!r}), tvm.cpu())
machine["main"](tvm.runtime.tensor(np.array([1, 999])))
print(own() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert int(done.stdout) < weight.nbytes / 4, done.stderr


def test_the_library_keeps_its_weights(tmp_path: Path) -> None:
    """However often somebody asks for one and lets it go; there is nothing beyond the last."""
    weight = random()
    write(tmp_path / "m.so", [X], [Y], lambda x: op.add(x, constant(weight)))
    library = tvm.runtime.load_module(str(tmp_path / "m.so"))
    get = library.get_function(WEIGHT, query_imports=True)
    for _ in range(3):
        np.testing.assert_array_equal(get(0).numpy(), weight)
    assert [get(index) for index in (-1, 1, 2**62)] == [None] * 3
    np.testing.assert_array_equal(run(tmp_path / "m.so", weight), weight + weight)


def test_a_weight_that_is_a_result_outlives_the_library(tmp_path: Path) -> None:
    weight = random()
    write(
        tmp_path / "m.so",
        [X],
        [Y, spec("w", "float32", *BIG)],
        lambda x: [op.add(x, constant(weight)), constant(weight)],
    )
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "m.so")), tvm.cpu())
    _, result = machine["main"](tvm.runtime.tensor(weight))
    del machine
    result.copyfrom(weight + 1)  # it is the caller's
    np.testing.assert_array_equal(result.numpy(), weight + 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int64", "bool", "uint8", "float64"])
def test_weights_of_every_dtype(tmp_path: Path, dtype: str) -> None:
    weight = (random((128, 64)) * 3).astype(dtype)
    index = spec("i", "int64", 2)
    write(
        tmp_path / "m.so",
        [index],
        [spec("y", dtype, 2, 64)],
        lambda i: op.take(constant(weight), i, axis=0),
    )
    np.testing.assert_array_equal(run(tmp_path / "m.so", np.array([5, 127])), weight[[5, 127]])


def test_a_module_without_weights(tmp_path: Path) -> None:
    write(tmp_path / "m.so", [X], [Y], lambda x: op.add(x, x))
    np.testing.assert_array_equal(run(tmp_path / "m.so", random()), random() * 2)


def test_weights_in_the_section_for_large_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linking, "LARGE_BYTES", 1000)
    weight = random()
    write(tmp_path / "m.so", [X], [Y], lambda x: op.add(x, constant(weight)))
    np.testing.assert_array_equal(run(tmp_path / "m.so", weight), weight + weight)
    sections = subprocess.run(["readelf", "-SW", tmp_path / "m.so"], capture_output=True, text=True)
    assert ".lrodata" in sections.stdout


def test_plain_tvm_reads_the_metadata(tmp_path: Path) -> None:
    executable = build([X], [Y], lambda x: op.add(x, x), source="ä 'quoted' \\ name")
    link(executable, tmp_path / "m.so")
    library = tvm.runtime.load_module(str(tmp_path / "m.so"))
    machine = relax.VirtualMachine(library, tvm.cpu())
    assert machine[METADATA_FUNCTION]() == executable.metadata


def test_kernels_are_named_when_built_one_by_one() -> None:
    said: list[tuple[str, str]] = []
    build(
        [X], [Y], lambda x: op.multiply(op.add(x, x), x), lambda *a: said.append(a), one_by_one=True
    )
    assert said == [
        ("build", "function add"),
        ("build", "function multiply"),
        ("build", "2 kernels"),
    ]


def test_results_that_are_weights_are_found() -> None:
    weight = random()
    mod = lower(
        [X],
        lambda x: [
            op.add(x, x),
            constant(weight),
            op.reshape(x, (32, 64)),
            op.reshape(constant(weight), (32, 64)),
        ],
    )
    assert 1 in results_in_weights(mod)
    assert 0 not in results_in_weights(mod)


def test_without_a_compiler_the_error_names_two_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(linking, "find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match="no compiler") as caught:
        find_compiler()
    assert "g++" in caught.value.hint
    assert "tvmext[toolchain]" in caught.value.hint


def test_the_ziglang_wheel_is_used_where_no_compiler_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(linking, "find_spec", lambda name: object())
    assert find_compiler() == [sys.executable, "-m", "ziglang", "cc"]


@pytest.mark.skipif(not find_spec("ziglang"), reason="the ziglang wheel is not installed")
def test_the_ziglang_wheel_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"{sys.executable} -m ziglang cc")
    weight = random()
    write(tmp_path / "m.so", [X], [Y], lambda x: op.add(x, constant(weight)))
    np.testing.assert_array_equal(run(tmp_path / "m.so", weight), weight + weight)


def test_cxx_chooses_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"{shutil.which('cc')} -s")
    write(tmp_path / "m.so", [X], [Y], lambda x: op.add(x, x))
    np.testing.assert_array_equal(run(tmp_path / "m.so", random()), random() * 2)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ToolchainError, match="no-such-compiler"):
        find_compiler()


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho internal compiler trouble >&2\nexit 7\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(InternalError, match="exit code 7:\ninternal compiler trouble") as caught:
        write(tmp_path / "m.so", [X], [Y], lambda x: op.add(x, x))
    assert str(compiler) in caught.value.hint


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    executable = build([X], [Y], lambda x: op.add(x, x))
    with pytest.raises(ArtifactError, match="its folder does not exist"):
        link(executable, tmp_path / "missing" / "m.so")


@pytest.mark.parametrize("kib", [100, 420])
def test_a_full_disk(tmp_path: Path, kib: int) -> None:
    """Full while the weights (400 KiB) are written, then while the compiler runs."""
    weight = random((100, 1024))
    x = spec("x", "float32", 1024)
    y = spec("y", "float32", 100, 1024)
    executable = build([x], [y], lambda x: op.add(x, constant(weight)))
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", tmp_path]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        with pytest.raises(ArtifactError, match="the disk is full"):
            link(executable, tmp_path / "m.so")
        assert not (tmp_path / "m.so.parts").exists()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
