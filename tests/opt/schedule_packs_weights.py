# RUN: --passes kernels,fuse,schedule --target "llvm -mcpu=x86-64-v3"
"""A weight is stored as the panels that its product reads, with two vectors of AVX2 in a row."""

import numpy as np
from tvm import relax
from tvm.relax import op

builder = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((64, 40), "float32"))
with builder.function("main", [x], attrs={"num_input": 1}):
    with builder.dataflow():
        weight = relax.const(np.ones((40, 160), "float32"))
        out = builder.emit_output(op.matmul(x, weight))
    builder.emit_func_output(out)
module = builder.get()

# CHECK-LABEL: def matmul(
# CHECK-SAME:    T.Buffer((T.int64(10), T.int64(40), T.int64(16)), "float32"
# CHECK:         tvmext.scheduled
# CHECK-LABEL: def main(
# CHECK:         R.call_tir(cls.matmul, (x, metadata["ir.GenericConst"][0])
