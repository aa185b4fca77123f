"""Small Relax modules and what the pass tests ask of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax
from tvm.relax import TensorType


def build(
    inputs: Sequence[tuple[str, Sequence, str]],
    body: Callable[..., relax.Expr | list[relax.Expr]],
) -> tvm.IRModule:
    """``main(inputs)`` in one dataflow block; `body` gets a builder and the input variables."""
    builder = relax.BlockBuilder()
    params = [relax.Var(name, TensorType(shape, dtype)) for name, shape, dtype in inputs]
    with builder.function("main", params):
        with builder.dataflow():
            result = body(builder, *params)
            results = result if isinstance(result, list) else [result]
            outs = [builder.emit_output(value) for value in results]
        builder.emit_func_output(outs[0] if len(outs) == 1 else relax.Tuple(outs))
    return builder.get()


def operators(mod: tvm.IRModule) -> Counter[str]:
    """How often each operator is called in main."""
    found: Counter[str] = Counter()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call):
            found[getattr(expr.op, "name", str(expr.op))] += 1

    relax.analysis.post_order_visit(mod["main"], visit)
    return found


def run(mod: tvm.IRModule, *inputs: np.ndarray) -> list[np.ndarray]:
    """The outputs of main by TVM's own, unscheduled pipeline."""
    executable = tvm.compile(mod, "llvm")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine["main"](*[tvm.runtime.tensor(x) for x in inputs])
    outputs = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return [output.numpy() for output in outputs]


def assert_same(before: tvm.IRModule, after: tvm.IRModule, *inputs: np.ndarray) -> None:
    """Both modules compute the same on `inputs`, up to rounding."""
    for expected, actual in zip(run(before, *inputs), run(after, *inputs), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 values, shape `shape`."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")
