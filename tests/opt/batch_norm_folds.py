# RUN: --passes decompose-batch-norm,dead-code-elimination,fold-affine,dead-code-elimination
"""A batch norm after a convolution ends in its weights and one addition."""

import numpy as np
from tvm import relax
from tvm.relax import op

builder = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((1, 3, 8, 8), "float32"))
with builder.function("main", [x], attrs={"num_input": 1}):
    with builder.dataflow():
        weight = relax.const(np.ones((4, 3, 3, 3), "float32"))
        moments = [relax.const(np.full(4, value, "float32")) for value in (2, 1, 0.5, 3)]
        conv = builder.emit(op.nn.conv2d(x, weight))
        norm = builder.emit(op.nn.batch_norm(conv, *moments, axis=1, training=False))
        out = builder.emit_output(relax.TupleGetItem(norm, 0))
    builder.emit_func_output(out)
module = builder.get()

# CHECK-LABEL: def main(
# CHECK-NOT:     batch_norm
# CHECK:         R.nn.conv2d(x
# CHECK-NOT:     R.multiply
# CHECK-COUNT-1: R.add(
# CHECK-NOT:     R.add(
# CHECK:         R.output
