"""What If, Loop and Scan cost an import: each body once, however deep it is and often it comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from onnx import ModelProto, parser
from tvm import relax

from tvmext.frontends import load
from tvmext.frontends.onnx import control

HEADER = '<ir_version: 10, opset_import: ["" : 20]> main (bool c, float[n] x) => (float[n] y)'


def nested(depth: int, factor: Callable[[], float]) -> str:
    """Ifs in both branches of Ifs, whose leaves multiply by the factors."""
    if not depth:
        return f"k = Constant <value_float = {factor()}> () m = Mul(x, k)"
    one, other = (
        f"{name} = {name} () => (float[n] m) {{ {nested(depth - 1, factor)} }}"
        for name in ("then_branch", "else_branch")
    )
    return f"m = If (c) <{one}, {other}>"


def model(body: str) -> ModelProto:
    return parser.parse_model(f"{HEADER} {{ {body} y = Identity(m) }}")


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bodies that were analysed."""
    found: list[str] = []
    analyse = control._analysed

    def counted(graph, *rest):
        found.append(graph.name)
        return analyse(graph, *rest)

    monkeypatch.setattr(control, "_analysed", counted)
    return found


def functions(proto: ModelProto) -> list[str]:
    mod = load(proto).mod
    return [v.name_hint for v, f in mod.functions_items() if isinstance(f, relax.Function)]


def test_equal_branches_are_one_function(analysed):
    """2^7 copies of the innermost body, in a file as large."""
    assert len(functions(model(nested(7, lambda: 2.0)))) == 1 + 7
    assert len(analysed) <= 2 * 7


def test_bodies_in_bodies_are_analysed_as_often_as_others(analysed):
    """Not once for each body around them: for shapes, and again when constants are known."""
    factors = iter(range(1, 1000))
    bodies = 2 + 4 + 8 + 16 + 32
    assert len(functions(model(nested(5, lambda: float(next(factors)))))) == 1 + bodies
    assert len(analysed) <= 2 * bodies


def test_equal_bodies_of_several_nodes_share_a_function():
    def branches(one: float, other: float) -> str:
        leaf = "k = Constant <value_float = {}> () r = Mul(m, k)"
        then, otherwise = (leaf.format(value) for value in (one, other))
        return (
            f"then_branch = a () => (float[n] r) {{ {then} }},"
            f"else_branch = b () => (float[n] r) {{ {otherwise} }}"
        )

    first = f"m = Neg(x) p = If (c) <{branches(2.0, 3.0)}>"
    second = f"q = If (c) <{branches(3.0, 4.0)}>"
    proto = parser.parse_model(f"{HEADER} {{ {first} {second} y = Add(p, q) }}")
    assert len(functions(proto)) == 1 + 3
