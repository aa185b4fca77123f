"""BindModel: weights become constants, ranges of dims reach the memory planner."""

from __future__ import annotations

import numpy as np
import tvm
from onnx import helper

from tests.cli import networks
from tests.passes.modules import build
from tvmext.frontends import load
from tvmext.frontends.dims import Dim
from tvmext.frontends.model import Model
from tvmext.passes.bind_model import BindModel


def test_weights_become_constants() -> None:
    model = load(networks.linear(batch=2))
    bound = BindModel(model)(model.mod)
    assert len(model.mod["main"].params) == 2
    assert [var.name for var in bound["main"].params] == ["x"]
    (product, _) = [b.value for b in bound["main"].body.blocks[0].bindings][:2]
    np.testing.assert_array_equal(product.args[1].value.numpy(), networks.WEIGHT)


def test_upper_bounds_are_known_to_the_planner() -> None:
    n = tvm.tirx.Var("n", "int64")
    mod = build([("x", (n, 4), "float32")], lambda _, x: x)
    dims = {"n": Dim("n", 1, 64), "free": Dim("free")}
    bound = BindModel(Model(mod, {}, (), (), dims))(mod)
    assert dict(bound["main"].attrs["tir_var_upper_bound"]) == {"n": 64}
    assert "tir_var_upper_bound" not in mod["main"].attrs


def test_nothing_to_bind_changes_nothing() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    model = load(networks.model([relu], {"x": ["n", 2]}, {"y": ["n", 2]}))
    tvm.ir.assert_structural_equal(BindModel(model)(model.mod), model.mod)
