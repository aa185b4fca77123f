"""A compiled model in this process: what it takes, what it refuses, and whose memory is whose."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op

from tests.tvmext.models import spec, write
from tvmext.arch import physical_cores
from tvmext.errors import ArtifactError, DimError, InputError, InternalError, OptionError
from tvmext.frontends.dims import Dim, Guard, parse
from tvmext.runtime import CompiledModel, load
from tvmext.runtime.threads import default_threads

N, M = parse("n"), parse("m")


class Exchanged:
    """An array that offers nothing but DLPack, as a tensor of another library does."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[Any, Any]:
        return self._array.__dlpack_device__()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def affine(folder: Path) -> CompiledModel:
    """y = (a + b) * scale; n may be up to 64 and must be even, the last dim of b is 2*n."""
    path = write(
        folder / "affine.so",
        [spec("a", "float32", N, 4), spec("b", "float32", N, 4), spec("scale", "float32")],
        [spec("y", "float32", N, 4)],
        lambda a, b, scale: op.multiply(op.add(a, b), scale),
        dims={"n": Dim("n", 0, 64, label="batch")},
        guards=(Guard(2, "divides", N, "node 'Reshape_3' splits it"),),
    )
    return load(path, num_threads=1)


def arrays(n: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    a, b = (rng.standard_normal((n, 4), dtype=np.float32) for _ in "ab")
    return {"a": a, "b": b, "scale": np.array(3, np.float32)}


def expected(given: dict[str, np.ndarray]) -> np.ndarray:
    return (given["a"] + given["b"]) * given["scale"]


def aligned(array: np.ndarray, offset: int = 0) -> np.ndarray:
    """A copy whose address is a multiple of 64 plus `offset`."""
    memory = np.empty(array.nbytes + 64 + offset, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def test_inputs_by_name_and_by_position(affine: CompiledModel) -> None:
    given = arrays()
    for result in (affine.run(given), affine.run(*given.values())):
        assert list(result) == ["y"]
        np.testing.assert_array_equal(result["y"], expected(given))


@pytest.mark.parametrize("n", [0, 2, 64])
def test_every_size_in_the_range(affine: CompiledModel, n: int) -> None:
    given = arrays(n)
    np.testing.assert_array_equal(affine.run(given)["y"], expected(given))


@pytest.mark.parametrize("offset", [0, 4, 16, 60])
def test_any_alignment(affine: CompiledModel, offset: int) -> None:
    given = arrays(16)
    moved = {name: aligned(array, offset) for name, array in given.items()}
    np.testing.assert_array_equal(affine.run(moved)["y"], expected(given))


def test_strides_read_only_memory_and_other_libraries(affine: CompiledModel) -> None:
    given = arrays(8)
    read_only = given["b"].copy()
    read_only.flags.writeable = False
    for a in (
        np.asfortranarray(given["a"]),
        np.repeat(given["a"], 2, axis=1)[:, ::2],
        given["a"][::-1].copy()[::-1],
        Exchanged(given["a"]),
        Exchanged(aligned(given["a"])),
        Exchanged(np.asfortranarray(given["a"])),
        tvm.runtime.tensor(given["a"]),
    ):
        result = affine.run(a, read_only, np.float32(3))
        np.testing.assert_array_equal(result["y"], expected(given))


def test_an_aligned_array_is_read_in_place(affine: CompiledModel) -> None:
    array = aligned(arrays()["a"])
    slot = affine._slots[0]
    assert slot.bind(slot.accept(array)).data_ptr() == array.ctypes.data


def refused(model: CompiledModel, error: type[Exception], message: str, *given: Any) -> Any:
    with pytest.raises(error, match=message) as caught:
        model.run(*given)
    return caught.value


def test_wrong_names_and_counts(affine: CompiledModel) -> None:
    given = arrays()
    error = refused(affine, InputError, "2 inputs given, the model takes 3", given["a"], given["b"])
    assert "a: float32[n, 4]; b: float32[n, 4]; scale: float32[]" in error.hint
    wrong = {"a": given["a"], "B": given["b"], 7: given["scale"]}
    refused(affine, InputError, "missing inputs: b, scale; unknown inputs: B, 7", wrong)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"a": np.zeros((4, 4))}, InputError, "'a' is float64, expected float32"),
        ({"a": Exchanged(np.zeros((4, 4)))}, InputError, "'a' is float64, expected float32"),
        ({"a": [[1.0] * 4] * 4}, InputError, "'a' is float64, expected float32"),
        ({"a": "text"}, InputError, "'a' is <U4, expected float32"),
        ({"a": object()}, InputError, "'a' is a object, expected an array"),
        ({"a": None}, InputError, "'a' is a NoneType, expected an array"),
        ({"scale": 3}, InputError, "'scale' is int64, expected float32"),
        (
            {"a": np.zeros(4, "f4")},
            InputError,
            r"'a' has 1 dims, shape \[4\]; expected 2: \[n, 4\]",
        ),
        ({"a": np.zeros((4, 5), "f4")}, InputError, "'a' has size 5 on axis 1, expected 4"),
        ({"b": np.zeros((2, 4), "f4")}, DimError, "'batch' is 4 in 'a' but 2 in 'b'"),
    ],
)
def test_wrong_inputs(
    affine: CompiledModel, changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    refused(affine, error, message, {**arrays(), **changed})


def test_a_dtype_is_never_cast_but_the_cast_is_named(affine: CompiledModel) -> None:
    error = refused(affine, InputError, "float64", {**arrays(), "a": np.zeros((4, 4))})
    assert '.astype("float32")' in error.hint


def test_ranges_and_guards(affine: CompiledModel) -> None:
    refused(affine, DimError, "'a': dim 'batch' is 66, outside its range 0:64", arrays(66))
    refused(affine, DimError, "needs 2 divides n, but batch = 5; node 'Reshape_3'", arrays(5))


def test_sizes_that_are_computed_from_dims(folder: Path) -> None:
    """The library takes any size m; the metadata say it is past + n."""
    path = write(
        folder / "sum.so",
        [spec("x", "float32", N), spec("mask", "float32", M)],
        [spec("y", "float32", N)],
        lambda x, mask: op.add(x, op.sum(mask, keepdims=True)),
    )
    model = load(path, num_threads=1)
    model._signature.inputs = (model.inputs[0], spec("mask", "float32", parse("2*n + 1")))
    assert model.run(np.ones(3, "f4"), np.ones(7, "f4"))["y"].tolist() == [8, 8, 8]
    message = r"'mask' has size 8 on axis 0, expected 2\*n \+ 1 = 7 \(n = 3\)"
    refused(model, DimError, message, np.ones(3, "f4"), np.ones(8, "f4"))


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint8", "float16", "float64"])
def test_every_dtype_and_scalars(folder: Path, dtype: str) -> None:
    specs = [spec("x", dtype, N), spec("s", dtype)]
    larger = op.logical_or if dtype == "bool" else op.maximum
    path = write(
        folder / f"{dtype}.so",
        specs,
        [spec("y", dtype, N), spec("z", dtype)],
        lambda x, s: [larger(x, s), larger(s, s)],
    )
    x, s = np.array([0, 1, 1]).astype(dtype), np.array(1).astype(dtype)
    result = load(path, num_threads=1).run(x, s)
    assert (result["y"].dtype, result["z"].dtype) == (dtype, dtype)
    assert (result["y"].tolist(), result["z"].tolist()) == ([1, 1, 1], 1)
    assert result["z"].shape == ()


def test_bfloat16(folder: Path) -> None:
    """NumPy cannot exchange it by DLPack."""
    spec_ = spec("x", "bfloat16", N)
    path = write(
        folder / "bfloat16.so", [spec_], [spec("y", "bfloat16", N)], lambda x: op.permute_dims(x)
    )
    x = np.array([1.5, -2], ml_dtypes.bfloat16)
    y = load(path, num_threads=1).run(x)["y"]
    assert (y.dtype, y.tolist()) == (ml_dtypes.bfloat16, [1.5, -2])


@pytest.fixture(scope="module")
def aliases(folder: Path) -> CompiledModel:
    """Outputs that lie in an input, in a weight, and in one another."""
    weight = relax.const(np.arange(4, dtype="float32"))

    def body(x: Any) -> list[Any]:
        total = op.add(x, weight)
        return [x, weight, total, total]

    outputs = [spec(name, "float32", 4) for name in ("same", "weight", "sum", "again")]
    return load(write(folder / "aliases.so", [spec("x", "float32", 4)], outputs, body))


@pytest.mark.parametrize("offset", [0, 16])
def test_outputs_belong_to_the_caller(aliases: CompiledModel, offset: int) -> None:
    x = aligned(np.ones(4, np.float32), offset)
    wanted = {name: array.copy() for name, array in aliases.run(x).items()}
    for _ in range(3):
        result = aliases.run(x)
        for array in result.values():
            array[...] = 99
            for other in result.values():
                assert other is array or not np.shares_memory(array, other)
            assert not np.shares_memory(array, x)
        for name, array in aliases.run(x).items():
            np.testing.assert_array_equal(array, wanted[name])
        np.testing.assert_array_equal(x, np.ones(4))


def test_outputs_outlive_later_runs_and_the_model(folder: Path, affine: CompiledModel) -> None:
    model = load(shutil.copy(folder / "affine.so", folder / "copy.so"), num_threads=1)
    given = {n: arrays(n) for n in (2, 4, 6, 8)}
    results = {n: model.run(array)["y"] for n, array in given.items()}
    for _ in range(10):
        model.run(arrays(4))
    del model
    gc.collect()
    for n, result in results.items():
        np.testing.assert_array_equal(result, expected(given[n]))


def test_a_model_is_freed_at_once(folder: Path, affine: CompiledModel) -> None:
    gc.disable()
    try:
        model = load(folder / "affine.so", num_threads=1)
        model.run(arrays())
        gone = weakref.ref(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_a_failure_inside_the_model_is_an_internal_error(folder: Path) -> None:
    """The metadata promise any size; the code takes only three."""
    path = write(
        folder / "fixed.so",
        [spec("x", "float32", 3)],
        [spec("y", "float32", 3)],
        lambda x: op.add(x, x),
    )
    model = load(path, num_threads=1)
    model._signature.inputs = (spec("x", "float32", N),)
    refused(model, InternalError, "the model failed while it ran", np.ones(4, "f4"))


def test_calls_from_several_threads(affine: CompiledModel) -> None:
    wrong: list[int] = []

    def work(n: int) -> None:
        given = arrays(n)
        right = (np.array_equal(affine.run(given)["y"], expected(given)) for _ in range(200))
        if not all(right):
            wrong.append(n)

    threads = [threading.Thread(target=work, args=(2 * i,)) for i in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_number_of_threads(affine: CompiledModel) -> None:
    count = tvm.get_global_func("runtime.NumThreads")

    def used(threads: int | None) -> int:
        affine.num_threads = threads
        affine.run(arrays())
        return count()

    assert used(1) == 1
    assert used(None) == default_threads()
    assert used(len(physical_cores())) == len(physical_cores())
    assert used(1) == 1
    with pytest.raises(OptionError, match="num_threads is 0"):
        affine.num_threads = 0


SEEN = """
import json, os, sys, numpy as np, tvm, tvmext
model = tvmext.load(sys.argv[1])
model.run(*[np.ones((2, 4), "float32")] * 2, np.array(3, "float32"))
workers = {int(task) for task in os.listdir("/proc/self/task")} - {os.getpid()}
places = [sorted(os.sched_getaffinity(task)) for task in (os.getpid(), *workers)]
print(json.dumps([tvm.get_global_func("runtime.NumThreads")(), *places]))
"""


@pytest.mark.parametrize("wish", [{}, {"TVM_NUM_THREADS": "1"}, {"TVM_BIND_THREADS": "0"}])
def test_threads_of_a_process(affine: CompiledModel, folder: Path, wish: dict[str, str]) -> None:
    """One for each core, each worker on a core of its own where all run."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TVM_")}
    seen = subprocess.run(
        [sys.executable, "-c", SEEN, str(folder / "affine.so")],
        env=clean | wish,
        stdout=subprocess.PIPE,
        check=True,
    )
    count, caller, *workers = json.loads(seen.stdout)
    cores = physical_cores()
    assert count == int(wish.get("TVM_NUM_THREADS", len(cores)))
    assert caller == sorted(os.sched_getaffinity(0))
    bound = sorted(place for place in workers if len(place) == 1 and len(caller) > 1)
    assert bound == ([] if wish or len(caller) == 1 else [[core] for core in cores[1:]])


def test_save_and_load(affine: CompiledModel, tmp_path: Path) -> None:
    path = tmp_path / "saved.so"
    affine.save(path)
    again = load(path, num_threads=1)
    assert again.metadata == affine.metadata
    np.testing.assert_array_equal(again.run(arrays())["y"], expected(arrays()))


def test_save_after_the_file_is_gone(folder: Path, affine: CompiledModel, tmp_path: Path) -> None:
    path = Path(shutil.copy(folder / "affine.so", tmp_path / "first.so"))
    model = load(path, num_threads=1)
    path.unlink()
    model.save(tmp_path / "second.so")
    assert (tmp_path / "second.so").read_bytes() == (folder / "affine.so").read_bytes()


def test_replacing_the_file_does_not_disturb_a_loaded_model(
    folder: Path, affine: CompiledModel, aliases: CompiledModel, tmp_path: Path
) -> None:
    path = Path(shutil.copy(folder / "affine.so", tmp_path / "model.so"))
    model = load(path, num_threads=1)
    aliases.save(path)
    np.testing.assert_array_equal(model.run(arrays())["y"], expected(arrays()))
    assert load(path).outputs == aliases.outputs


def test_a_model_says_what_it_is(affine: CompiledModel) -> None:
    assert repr(affine) == (
        "CompiledModel(a: float32[n, 4], b: float32[n, 4], scale: float32[] -> y: float32[n, 4])"
    )
    assert [s.name for s in affine.inputs] == ["a", "b", "scale"]
    assert [s.name for s in affine.outputs] == ["y"]


def test_what_cannot_be_loaded(tmp_path: Path, folder: Path, affine: CompiledModel) -> None:
    with pytest.raises(OptionError, match="compiled for cpu, not for cuda:0"):
        load(folder / "affine.so", device="cuda:0")
    with pytest.raises(ArtifactError, match="No such file"):
        load(tmp_path / "missing.so")


def test_a_library_whose_code_is_damaged(
    folder: Path, affine: CompiledModel, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.so"
    content = (folder / "affine.so").read_bytes()
    path.write_bytes(content.replace(b"relax.VMExecutable", b"relax.NoSuchModule"))
    with pytest.raises(ArtifactError, match=r"cannot load .*NoSuchModule"):
        load(path)
