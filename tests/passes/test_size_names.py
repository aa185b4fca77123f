"""Names for sizes: what keeps its relation, what takes a name, and that all stays equal."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tvmext.frontends.dims import evaluate, parse
from tvmext.passes.size_names import SizeNames


def named(*sizes: str, others: tuple[str, ...] = ()) -> tuple[list[str], dict[str, str]]:
    """What the sizes are called, and what each name stands for."""
    parsed = [parse(size) for size in sizes]
    names = SizeNames.of(parsed, map(parse, others))
    texts = [str(names.express(size)) for size in parsed]
    return texts, {name: str(size) for name, size in names.names.items()}


def test_a_dim_is_a_name() -> None:
    assert named("batch", "seq", "batch") == (["n0", "n1", "n0"], {"n0": "batch", "n1": "seq"})


def test_a_long_size_takes_a_name_of_its_own() -> None:
    texts, names = named("batch", "floordiv(h + 3, 4)*floordiv(w + 3, 4)")
    assert texts == ["n0", "n1"]
    assert names["n1"] == str(parse("floordiv(h + 3, 4)*floordiv(w + 3, 4)"))


def test_products_sums_and_coarser_quotients_keep_their_relation() -> None:
    texts, names = named(
        "floordiv(h + 3, 4)",
        "w",
        "floordiv(h + 3, 4)*w",
        "3*floordiv(h + 3, 4)*w + 1",
        "floordiv(h - 1, 8) + 1",
        "floordiv(h + 3, 32)",
    )
    assert texts == ["n0", "n1", "n0*n1", "3*n0*n1 + 1", "floordiv(n0 + 1, 2)", "floordiv(n0, 8)"]
    assert set(names) == {"n0", "n1"}


def test_sizes_computed_elsewhere_are_over_dims_and_never_named() -> None:
    """``past - 5`` may be negative, which no size of a tensor is."""
    texts, names = named("past + seq", "seq", others=("past - 5",))
    assert texts == ["n1 + n2", "n1"]
    assert names == {"n1": "seq", "n2": "past"}


@st.composite
def sizes(draw: st.DrawFn) -> str:
    """Sizes as exports have them: of windows, paddings, merged and concatenated dims."""
    text = draw(st.sampled_from("hwb"))
    for _ in range(draw(st.integers(0, 4))):
        c, d = draw(st.integers(0, 7)), draw(st.sampled_from("hwb"))
        forms = (f"({text} + {c})", f"floordiv({text} + {c}, {c + 1})", f"({text})*{d}")
        text = draw(st.sampled_from((*forms, f"({text} + {d})", f"min({text}, {c} + {d})")))
    return text


@settings(max_examples=100, deadline=None)
@given(st.lists(sizes(), max_size=6), st.lists(sizes(), max_size=3), st.integers(0, 99))
def test_every_size_keeps_its_value(shapes: list[str], others: list[str], seed: int) -> None:
    dims = {"h": seed, "w": seed % 7, "b": seed % 3}
    parsed, more = ([parse(text) for text in texts] for texts in (shapes, others))
    names = SizeNames.of(parsed, more)
    values = {name: evaluate(size, dims) for name, size in names.names.items()}
    for size in (*parsed, *more):
        over = names.express(size)
        assert over is not None
        assert evaluate(over, values) == evaluate(size, dims)
