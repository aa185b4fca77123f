"""The verbs on a tiny model: what they print, as tables and as JSON, and what they write."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli import networks
from tests.cli.conftest import Call


def expected(x: np.ndarray) -> np.ndarray:
    return np.maximum(x @ networks.WEIGHT, 0)


def test_compile_says_what_it_wrote(tvmext: Call, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.so"
    result = tvmext("compile", tiny, "-o", out, "--dim", "batch=1:8", "--json")
    assert result.code == 0, result.err
    assert result.json["artifact"] == str(out)
    assert result.json["bytes"] == out.stat().st_size
    assert result.json["metadata"]["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": ["batch", "4"]}
    ]
    assert (result.json["metadata"]["dims"]["batch"]["high"]) == 8
    assert "build" in result.err
    refused = tvmext("run", out, "--dim", "batch=9")
    assert refused.code == 2
    assert "outside its range 1:8" in refused.err


def test_compile_writes_beside_nobody(tiny: Path, tmp_path: Path) -> None:
    """The default output is in the current folder, named after the model."""
    command = [sys.executable, "-m", "tvmext", "compile", str(tiny), "--input-shapes", "x:[2,4]"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.so"]
    assert re.search(r"input +x +float32 +\[2, 4\]", done.stdout)


def test_compile_options_reach_the_compiler(tvmext: Call, tiny: Path, tmp_path: Path) -> None:
    flags = [
        "-O1",
        "--print-ir-after",
        "FuseOperators",
        "--print-pass-times",
        "--disabled-pass",
        "FuseTIR",
    ]
    flags += ["--pass-config", "tirx.noalias=true"]
    result = tvmext("compile", tiny, "-o", tmp_path / "a.so", "--json", *flags)
    assert result.code == 0, result.err
    assert "# after FuseOperators" in result.err
    options = result.json["metadata"]["options"]
    assert options["opt_level"] == 1
    assert options["pass_config"] == [["tirx.noalias", True]]


def test_compile_dumps_code(tvmext: Call, tiny: Path, tmp_path: Path) -> None:
    result = tvmext("compile", tiny, "-o", tmp_path / "a.so", "--dump-code", "relax,tir,ll,asm")
    assert result.code == 0, result.err
    expected_text = {
        "a.relax.py": "R.function",
        "a.tir.py": "T.prim_func",
        "a.ll": "define ",
        "a.s": ".globl",
    }
    for name, text in expected_text.items():
        assert text in (tmp_path / name).read_text(), name
    assert {path.name for path in tmp_path.iterdir()} == {"a.so", *expected_text}


def test_explain_tells_what_became_of_movement(tvmext: Call, tmp_path: Path) -> None:
    path, page = tmp_path / "net.onnx", tmp_path / "net.html"
    path.write_bytes(networks.moving().SerializeToString())
    result = tvmext("explain", path, "--html", page)
    assert result.code == 0, result.err
    assert re.search(r"swap +permute_dims +4.batch +read", result.out)
    assert re.search(r"movement kernels left +\d+ +0", result.out)
    assert "swap" in page.read_text(encoding="utf-8")
    told = tvmext("explain", path, "--dim", "batch=2", "--json").json
    assert told["movement_operators"] == 1
    assert told["ours"]["movement_kernels_left"] == []
    assert told["stock"]["planned_bytes"] >= told["ours"]["planned_bytes"] > 0


def test_explain_says_where_it_cannot_write(tvmext: Call, tiny: Path, tmp_path: Path) -> None:
    result = tvmext("explain", tiny, "--html", tmp_path / "none" / "page.html")
    assert result.code == 2
    assert "its folder does not exist" in result.err


@pytest.mark.parametrize("compiled", [True, False])
def test_shapes_of_inputs_say_the_sizes(
    tvmext: Call, tiny: Path, tiny_library: Path, tmp_path: Path, compiled: bool
) -> None:
    """Of a library, and of a model whose suffix does not say what it is."""
    model = tmp_path / "model.bin"
    model.write_bytes(tiny.read_bytes())
    shapes = ["--input-shapes", "x:[5,4]", "--json"]
    form = [] if compiled else ["--model-format", "onnx"]
    run = tvmext("run", tiny_library if compiled else model, *shapes, *form)
    assert run.json["outputs"][0]["shape"] == [5, 3]
    files = [tiny, tiny_library] if compiled else [model]
    verified = tvmext("verify", *files, *shapes, *form)
    assert verified.code == 0, verified.err
    assert verified.json["cases"][0]["sizes"] == ({"batch": 5} if compiled else {})
    wrong = tvmext("run", tiny_library, "--input-shapes", "x:[5,9]")
    assert wrong.code == 2
    assert "'x' cannot have the shape [5, 9]" in wrong.err


def test_run_computes(tvmext: Call, tiny_library: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((5, 4), dtype=np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    out = tmp_path / "y.npz"
    result = tvmext("run", tiny_library, "-i", tmp_path / "x.npz", "-o", out, "--print-top", "2")
    assert result.code == 0, result.err
    with np.load(out) as outputs:
        np.testing.assert_allclose(outputs["y"], expected(x), rtol=1e-5, atol=1e-6)
    assert re.search(r"y +float32 +\[5, 3\]", result.out)
    assert "largest of y, first row" in result.out


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_run_fills_inputs(tvmext: Call, tiny_library: Path, batch: int) -> None:
    flags = ["--fill-mode", "ones", "--dim", f"batch={batch}", "--json"]
    result = tvmext("run", tiny_library, *flags)
    assert result.code == 0, result.err
    (output,) = result.json["outputs"]
    assert output["shape"] == [batch, 3]
    if batch:
        largest = expected(np.ones((1, 4), np.float32)).max()
        assert output["max"] == pytest.approx(largest, rel=1e-5)
    else:
        assert output["max"] is None


def test_run_takes_times(tvmext: Call, tiny_library: Path) -> None:
    flags = ["--print-time", "--repeat", "3", "--number", "2", "--num-threads", "1", "--json"]
    times = tvmext("run", tiny_library, *flags).json["time_ms"]
    assert list(times) == ["mean", "median", "max", "min", "std"]
    assert 0 < times["min"] <= times["median"] <= times["max"]


def test_run_compiles_a_model(tvmext: Call, tmp_path: Path) -> None:
    """One whose weights are not a number: valid, and so is the answer."""
    weight = networks.WEIGHT.copy()
    weight[0, 0] = np.nan
    path = tmp_path / "nan.onnx"
    path.write_bytes(networks.linear(weight=weight).SerializeToString())
    result = tvmext("run", path, "-o", tmp_path / "y.npz", "--fill-mode", "ones", "--json")
    assert result.code == 0, result.err
    with np.load(tmp_path / "y.npz") as outputs:
        assert np.isnan(outputs["y"][0, 0])
        np.testing.assert_allclose(outputs["y"][0, 1:], np.maximum(weight.sum(0)[1:], 0), atol=1e-5)
    assert result.json["outputs"][0]["mean"] is None


def test_relax_is_a_model_too(tvmext: Call, tmp_path: Path) -> None:
    """As JSON under a name that does not say so, and as a program, which needs trust."""
    program = tmp_path / "net.py"
    program.write_text(
        "from tvm.script import ir as I, relax as R\n"
        "@I.ir_module\n"
        "class Net:\n"
        "    @R.function\n"
        "    def main(x: R.Tensor((2, 'n'), 'float32')):\n"
        "        with R.dataflow():\n"
        "            y = R.add(x, x)\n"
        "            R.output(y)\n"
        "        return y\n"
    )
    refused = tvmext("inspect", program)
    assert refused.code == 2
    assert "--trust" in refused.err
    shape = tvmext("inspect", program, "--trust", "--json").json["inputs"][0]["shape"]
    assert shape == [2, "n"]

    import tvm

    text = tvm.ir.save_json(runpy.run_path(str(program))["Net"])
    (tmp_path / "net.relax").write_text(text)
    arguments = ["--model-format", "relax", "--dim", "n=3", "--fill-mode", "ones", "--json"]
    result = tvmext("run", tmp_path / "net.relax", *arguments)
    assert result.code == 0, result.err
    assert result.json["outputs"][0]["max"] == 2
    assert tvmext("run", tmp_path / "net.relax").code == 2


def test_verify_passes(tvmext: Call, tiny: Path, tiny_library: Path) -> None:
    result = tvmext("verify", tiny, tiny_library, "--dim", "batch=0,1,5")
    assert result.code == 0, result.err
    assert result.out.count("PASSED") == 3
    result = tvmext("verify", tiny, tiny_library, "--json")
    assert result.json["passed"] is True


def test_verify_fails(tvmext: Call, tiny_library: Path, tmp_path: Path) -> None:
    """Against a model with other weights, and against stored outputs that are not the model's."""
    other = tmp_path / "other.onnx"
    other.write_bytes(networks.linear(weight=networks.WEIGHT + 1).SerializeToString())
    result = tvmext("verify", other, tiny_library, "--dim", "batch=2")
    assert result.code == 1
    assert "FAILED" in result.out
    assert "Traceback" not in result.err
    x = np.ones((2, 4), np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "y.npz", y=expected(x) + np.eye(2, 3, dtype=np.float32))
    flags = ["-i", tmp_path / "x.npz", "--reference", tmp_path / "y.npz", "--json"]
    result = tvmext("verify", other, tiny_library, *flags)
    assert result.code == 1
    (output,) = result.json["cases"][0]["outputs"]
    assert output["passed"] is False
    assert output["max_abs"] == pytest.approx(1, abs=1e-5)


def test_inspect_a_model(tvmext: Call, tiny: Path) -> None:
    result = tvmext("inspect", tiny, "--json")
    assert result.code == 0, result.err
    assert result.json["operators"] == {"MatMul": 1, "Relu": 1}
    assert result.json["unsupported"] == []
    assert result.json["outputs"] == [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}]
    assert re.search(r"input +x +float32 +\[batch, 4\]", tvmext("inspect", tiny).out)


def test_inspect_names_what_is_not_supported(tvmext: Call, tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    networks.unknown_operator(path)
    result = tvmext("inspect", path)
    assert result.code == 0, result.err
    assert "not supported: com.example::Frobnicate" in result.out
    (op,) = tvmext("inspect", path, "--json").json["unsupported"]
    assert (op["op_type"], op["node"]) == ("Frobnicate", "middle")


def test_inspect_a_library(tvmext: Call, tiny_library: Path) -> None:
    found = tvmext("inspect", tiny_library, "--json").json
    assert found["kind"] == "library"
    assert found["bytes"] == tiny_library.stat().st_size
    assert len(found["model_sha256"]) == 64
    assert 0 < found["code_bytes"] < found["bytes"]
    assert re.search(r"output +y +float32 +\[batch, 3\]", tvmext("inspect", tiny_library).out)


def test_inspect_the_machine(tvmext: Call) -> None:
    assert tvmext("inspect", "arch", "--json").json["vector_bits"] >= 128
    assert "caches" in tvmext("inspect", "arch").out


@pytest.mark.parametrize("verb", ["compile", "run", "verify", "inspect"])
def test_help_has_an_example(tvmext: Call, verb: str) -> None:
    result = tvmext(verb, "--help")
    assert result.code == 0
    assert re.search(rf"Examples:\n +tvmext {verb} ", result.out)
    assert tvmext(verb, "-h").out == result.out


def test_versions(tvmext: Call) -> None:
    assert re.fullmatch(r"tvmext \d.*\(apache-tvm 0\.27.*\)\n", tvmext("--version").out)


def test_a_defect_is_ours(tvmext: Call, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("tvmext.cli.inspect.describe", broken)
    result = tvmext("inspect", tiny)
    assert result.code == 70
    assert "KeyError: 'lost'" in result.err
    assert f"tvmext inspect {tiny} --traceback" in result.err
    assert "Traceback" not in result.err
    assert "Traceback" in tvmext("inspect", tiny, "--traceback").err


def test_json_is_json(tvmext: Call, tiny_library: Path) -> None:
    """Also where a number is infinite, and nothing else is on stdout."""
    json.loads(tvmext("run", tiny_library, "--json", "--print-time").out)
