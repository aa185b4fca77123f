# RUN: --passes virtual-tensors
"""A transpose and its inverse leave nothing; one that is left becomes a kernel of its own."""

from tvm.script import ir as I
from tvm.script import relax as R


@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((2, 3, 5), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.permute_dims(x, axes=[2, 0, 1])
            b = R.permute_dims(a, axes=[1, 2, 0])
            c = R.exp(b)
            d = R.permute_dims(c, axes=[0, 2, 1])
            e = R.permute_dims(d, axes=[1, 2, 0])
            f = R.nn.softmax(e)
            R.output(f)
        return f


# CHECK-LABEL: @T.prim_func
# CHECK:         [v_i0, v_i1, v_i2] = c[v_i2, v_i1, v_i0]
# CHECK-LABEL: def main(
# CHECK-NOT:     permute_dims(x
# CHECK:         c: {{.*}} = R.exp(x)
# CHECK-NEXT:    [[E:\w+]] = R.call_tir(cls.permute_dims, (c,)
# CHECK-NEXT:    R.nn.softmax([[E]]
