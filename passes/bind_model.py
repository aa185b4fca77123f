"""Put what is known about a model into its module: weights as constants, ranges of dims."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvmext.frontends.model import Model


@tvm.transform.module_pass(opt_level=0, name="BindModel")
class BindModel:
    """``main(inputs, weights)`` becomes ``main(inputs)``; planning learns the ranges."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        if self.model.params:
            weights = {name: tvm.runtime.tensor(x) for name, x in self.model.params.items()}
            mod = relax.transform.BindParams("main", weights)(mod)
        bounds = {d.name: d.high for d in self.model.dims.values() if d.high is not None}
        if bounds:
            mod = mod.clone()
            mod["main"] = mod["main"].with_attr("tir_var_upper_bound", bounds)
        return mod
