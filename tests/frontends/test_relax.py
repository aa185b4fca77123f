"""Relax modules as input: in memory, as JSON, as TVMScript."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import relax as R

from tvmext.errors import DimError, ModelError, OptionError
from tvmext.frontends import load
from tvmext.frontends.relax import save

WEIGHT = np.arange(3, dtype=np.float32)


def module() -> tvm.IRModule:
    """main(x [n, 3], w [3]) = x + w, with the symbolic dim n"""
    x = relax.Var("x", relax.TensorType([tirx.Var("n", "int64"), 3], "float32"))
    w = relax.Var("w", relax.TensorType([3], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.add(x, w))
        builder.emit_func_output(result)
    return builder.get()


def test_module_in_memory():
    model = load(module())
    assert [str(spec) for spec in model.inputs] == ["x: float32[n, 3]", "w: float32[3]"]
    assert [str(spec) for spec in model.outputs] == ["output: float32[n, 3]"]
    assert list(model.dims) == ["n"]
    assert not model.params


def test_module_with_weights():
    model = load((module(), {"w": tvm.runtime.tensor(WEIGHT)}))
    assert [spec.name for spec in model.inputs] == ["x"]
    np.testing.assert_array_equal(model.params["w"], WEIGHT)
    assert int(model.mod["main"].attrs["num_input"]) == 1


def test_the_module_is_not_changed():
    given = module()
    before = given.script()
    load((given, {"w": WEIGHT}), {"n": 4})
    assert given.script() == before


def test_dims_bind():
    model = load(module(), {"n": 4})
    assert model.inputs[0].shape == (4, 3)
    assert not model.dims
    assert load(module(), {"n": (1, 8)}).dims["n"].high == 8
    with pytest.raises(DimError, match="no dim 'm'"):
        load(module(), {"m": 4})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"v": WEIGHT}, "not the last parameters"),
        ({"x": WEIGHT}, "not the last parameters"),
        ({"w": WEIGHT[:2]}, r"'w' is float32\[2\]"),
        ({"w": WEIGHT.astype(np.float64)}, "'w' is float64"),
    ],
)
def test_wrong_weights(params, message):
    with pytest.raises(ModelError, match=message):
        load((module(), params))


def test_ranges_that_a_module_declares():
    declared = module()
    declared["main"] = declared["main"].with_attrs(
        {"tir_var_lower_bound": {"n": 2}, "tir_var_upper_bound": {"n": 9}}
    )
    dim = load(declared).dims["n"]
    assert (dim.low, dim.high) == (2, 9)
    assert load(declared, {"n": (3, None)}).dims["n"].range == "3:9"
    with pytest.raises(DimError, match="outside its range 2:9"):
        load(declared, {"n": 10})


def test_json_and_its_weights(tmp_path: Path):
    path = save(module(), {"w": WEIGHT}, tmp_path / "model.json")
    model = load(path)
    assert [spec.name for spec in model.inputs] == ["x"]
    np.testing.assert_array_equal(model.params["w"], WEIGHT)
    assert "params" not in model.mod["main"].attrs
    assert model.source == str(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"nodes": []}', '{"root_index": 5, "nodes": []}', "\xff"]
)
def test_what_is_not_json_of_a_module(tmp_path: Path, text):
    path = tmp_path / "model.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"model\.json"):
        load(path)


def test_json_of_something_else(tmp_path: Path):
    path = tmp_path / "model.json"
    path.write_text(tvm.ir.save_json(relax.TensorType([2], "float32")))
    with pytest.raises(ModelError, match="not an IRModule"):
        load(path)


SCRIPT = """
from tvm.script import ir as I, relax as R

@I.ir_module
class Network:
    @R.function
    def main(x: R.Tensor(("n", 3), "float32")) -> R.Tensor(("n", 3), "float32"):
        with R.dataflow():
            y = R.nn.relu(x)
            R.output(y)
        return y
"""


def test_script_runs_only_with_trust(tmp_path: Path):
    marker = tmp_path / "ran"
    path = tmp_path / "model.py"
    path.write_text(SCRIPT + f"\nopen({str(marker)!r}, 'w').close()\n")
    with pytest.raises(OptionError, match="would be run"):
        load(path)
    assert not marker.exists()
    assert str(load(path, trust=True).inputs[0]) == "x: float32[n, 3]"
    assert marker.exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [("1 / 0", "ZeroDivisionError"), ("x = (", "SyntaxError"), ("", "defines 0 modules")],
)
def test_script_that_is_no_model(tmp_path: Path, script, message):
    path = tmp_path / "model.py"
    path.write_text(script)
    with pytest.raises(ModelError, match=message):
        load(path, trust=True)


def test_missing_files(tmp_path: Path):
    for name in ("none.json", "none.py"):
        with pytest.raises(ModelError, match="cannot read"):
            load(tmp_path / name, trust=True)


def test_module_without_main():
    mod = module()
    other = tvm.IRModule({"other": mod["main"].without_attr("global_symbol")})
    with pytest.raises(ModelError, match="no Relax function 'main'"):
        load(other)


def test_results_that_are_not_tensors():
    @I.ir_module
    class Network:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")) -> R.Shape([2, 3]):
            return R.shape([2, 3])

    with pytest.raises(ModelError, match="output 0"):
        load(Network)
