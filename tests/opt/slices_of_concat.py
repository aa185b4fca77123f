# RUN: --passes virtual-tensors --dim n=7
"""Parts of a concatenation are what was put together."""

from tvm.script import ir as I
from tvm.script import relax as R


@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor(("n", 4), "float32"), y: R.Tensor(("n", 6), "float32")):
        R.func_attr({"num_input": 2})
        with R.dataflow():
            both = R.concat((x, y), axis=1)
            left = R.strided_slice(both, axes=[1], begin=[0], end=[4])
            right = R.strided_slice(both, axes=[1], begin=[4], end=[10])
            a = R.exp(left)
            b = R.tanh(right)
            R.output(a, b)
        return (a, b)


# CHECK-LABEL: def main(x: R.Tensor((7, 4)
# CHECK-NOT:     concat
# CHECK-NOT:     strided_slice
# CHECK-DAG:     R.exp(x)
# CHECK-DAG:     R.tanh(y)
