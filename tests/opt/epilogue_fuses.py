# RUN: --passes kernels,fuse
"""What follows a product element by element is computed in its kernel, whatever its rows."""

from tvm.script import ir as I
from tvm.script import relax as R


@I.ir_module
class Module:
    @R.function
    def main(
        x: R.Tensor(("n", 4), "float32"),
        w: R.Tensor((4, 3), "float32"),
        b: R.Tensor((3,), "float32"),
    ):
        R.func_attr({"num_input": 3})
        with R.dataflow():
            product = R.matmul(x, w)
            sum = R.add(product, b)
            out = R.nn.relu(sum)
            R.output(out)
        return out


# CHECK-COUNT-1: @T.prim_func
# CHECK:         def fused_matmul_add_relu(
# CHECK:           with T.sblock("matmul")
# CHECK-NOT:     @T.prim_func
# CHECK-LABEL: def main(
# CHECK-COUNT-1: R.call_tir({{.*}}fused_matmul_add_relu, (x, w, b)
# CHECK-NOT:     R.call_tir(
