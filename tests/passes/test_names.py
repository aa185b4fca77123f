"""Values keep their names on the way to kernels, those that fusion makes included."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax
from tvm.relax import transform

from tests.passes.modules import build
from tvmext.passes import layouts
from tvmext.passes.names import (
    ConvertLayouts,
    FuseOperators,
    NameValues,
    place_of,
    unnumbered,
)


def names(mod: tvm.IRModule) -> list[str]:
    return [binding.var.name for block in mod["main"].body.blocks for binding in block.bindings]


def legalized(mod: tvm.IRModule) -> tvm.IRModule:
    passes = [transform.LegalizeOps(), transform.AnnotateTIROpPattern()]
    return tvm.transform.Sequential([NameValues(), *passes])(mod)


def two_layers(builder: relax.BlockBuilder, x: relax.Var, w: relax.Var) -> relax.Expr:
    """Two groups that fusion makes one function of."""
    for _ in range(2):
        product = builder.emit(relax.op.matmul(x, w))
        x = builder.emit(relax.op.nn.relu(relax.op.add(product, x)))
    return relax.op.permute_dims(x)


def test_values_are_named_after_their_places() -> None:
    mod = build([("x", (4, 4), "float32"), ("w", (4, 4), "float32")], two_layers)
    named = NameValues()(mod)
    assert [place_of(name) for name in names(named)] == list(range(len(names(mod))))
    tvm.ir.assert_structural_equal(named, mod)


@pytest.mark.parametrize("size", [4, "n"])
def test_fused_functions_are_named_after_what_they_compute(size: int | str) -> None:
    n = tvm.tirx.Var("n", "int64") if size == "n" else size
    mod = legalized(build([("x", (n, 4), "float32"), ("w", (4, 4), "float32")], two_layers))
    fused = FuseOperators()(mod)
    plain = transform.FuseOps()(mod)
    tvm.ir.assert_structural_equal(fused, plain)
    relus = [k for k, op in enumerate(callees(mod)) if op.startswith("relu")]
    transpose = len(names(mod)) - 1
    assert [place_of(name) for name in names(fused)] == [*relus, transpose]
    assert names(transform.FuseTIR()(fused)) == names(fused)


def test_every_result_of_a_fused_function_is_named() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        half = builder.emit(relax.op.multiply(x, relax.const(0.5)))
        return [relax.op.exp(half), relax.op.add(half, x)]

    fused = FuseOperators()(legalized(build([("x", (4,), "float32")], body)))
    assert {1, 2} <= {place_of(name) for name in names(fused)}


@pytest.mark.parametrize("name", ["lv17", "v17", "x", "v_", "v17_a"])
def test_other_names_have_no_place(name: str) -> None:
    assert place_of(name) is None


def test_a_name_that_comes_again_has_its_place() -> None:
    assert place_of("v17_") == place_of("v17_3") == 17


def callees(mod: tvm.IRModule) -> list[str]:
    bindings = [binding for block in mod["main"].body.blocks for binding in block.bindings]
    return [getattr(getattr(b.value, "args", [""])[0], "name_hint", "") for b in bindings]


def test_values_in_another_layout_keep_their_names() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var, w: relax.Var) -> relax.Expr:
        y = builder.emit(relax.op.nn.relu(relax.op.nn.conv2d(x, w)))
        return relax.op.permute_dims(relax.op.reshape(y, (4, 36)))

    mod = NameValues()(
        build([("x", (1, 4, 8, 8), "float32"), ("w", (4, 4, 3, 3), "float32")], body)
    )
    converted = ConvertLayouts(layouts.wanted)(mod)
    places = {b.value.op.name: place_of(b.var.name) for b in bindings(converted)}
    assert places["relax.nn.conv2d"] == 0
    assert places["relax.nn.relu"] == 1
    assert places["relax.reshape"] == 2
    transposed = [place_of(b.var.name) for b in bindings(converted) if "permute" in b.value.op.name]
    assert transposed == [None, None, 1, 3]  # x and w have no place, relu in the layout of reshape


def bindings(mod: tvm.IRModule) -> list[relax.Binding]:
    return [
        b for block in mod["main"].body.blocks for b in block.bindings if hasattr(b.value, "op")
    ]


def test_casts_of_calls_do_not_disturb_layouts() -> None:
    """As NonZero under a fixed shape beside a convolution: TVM's pass asks for a variable."""

    def body(builder: relax.BlockBuilder, x: relax.Var, w: relax.Var) -> list[relax.Expr]:
        made = builder.emit(relax.op.nn.relu(builder.emit(relax.op.nn.conv2d(x, w))))
        count = tvm.tirx.Var("count", "int64")
        found = builder.match_cast(relax.op.nonzero(made), relax.TensorType((4, count), "int64"))
        cast = builder.match_cast(found, relax.TensorType((4, 9), "int64"))
        return [made, relax.op.reshape(cast, (36,))]

    mod = build([("x", (1, 4, 4, 4), "float32"), ("w", (8, 4, 3, 3), "float32")], body)
    casts = [b for b in mod["main"].body.blocks[0].bindings if isinstance(b, relax.MatchCast)]
    assert any(isinstance(cast.value, relax.Call) for cast in casts), "nothing is tested"
    converted = ConvertLayouts(layouts.wanted)(NameValues()(mod))
    relax.analysis.well_formed(converted)  # raises
    assert "NHWC" in converted.script()


@pytest.mark.parametrize(
    "name, plain",
    [
        ("matmul1_add23", "matmul_add"),
        ("conv2d_relu", "conv2d_relu"),
        ("conv2d12", "conv2d"),
        ("matmul_4_bits3", "matmul_4_bits"),
    ],
)
def test_a_kernel_without_its_number(name: str, plain: str) -> None:
    assert unnumbered(name) == plain
