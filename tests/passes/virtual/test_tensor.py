"""What cancels, what stays, and what a map costs: the chains of real networks."""

from __future__ import annotations

import pytest

from tvmext.frontends.dims import symbol
from tvmext.passes.virtual import operations as ops
from tvmext.passes.virtual.classify import Access, classify
from tvmext.passes.virtual.piece import Home, Lookup, local
from tvmext.passes.virtual.tensor import VirtualTensor, compose, physical

N = symbol("n")


def heads(x: VirtualTensor, count: int, size: int) -> VirtualTensor:
    """[n, count*size] -> [count, n, size]"""
    return ops.permute(ops.reshape(x, [x.shape[0], count, size]), [1, 0, 2])


def merged(x: VirtualTensor) -> VirtualTensor:
    """[count, n, size] -> [n, count*size]"""
    count, n, size = x.shape
    return ops.reshape(ops.permute(x, [1, 0, 2]), [n, count * size])


@pytest.mark.parametrize("n", [7, N], ids=str)
def test_inverse_operators_cancel(n) -> None:
    x = physical("x", [n, 768])
    assert merged(heads(x, 12, 64)) == x
    assert ops.permute(ops.permute(x, [1, 0]), [1, 0]) == x
    assert ops.flip(ops.flip(x, 0), 0) == x
    assert ops.concat(ops.split(x, [256, 256, 256], 1), 1) == x
    assert ops.roll(ops.roll(x, 3, 1), -3, 1) == x
    assert ops.slices(ops.pad(x, [2, 3], [1, 0], 0.0), 0, 2, n) == ops.pad(x, [0, 3], [0, 0], 0.0)
    assert ops.reshape(ops.reshape(x, [n * 12, 64]), [n, 768]) == x


def test_a_slice_of_a_concat_is_one_of_its_parts() -> None:
    parts = [physical(name, [N, size]) for name, size in (("a", 4), ("b", 6), ("c", 5))]
    whole = ops.concat(parts, 1)
    assert ops.slices(whole, 1, 4, 6) == parts[1]
    assert [home.name for home in ops.slices(whole, 1, 5, 8).homes] == ["b", "c"]


def test_concat_of_concats_is_flat() -> None:
    x = physical("x0", [N, 4])
    for k in range(1, 10):
        x = ops.concat([x, physical(f"x{k}", [N, 4])], 1)
    assert len(x.pieces) == 10
    assert all(not piece.guards for piece in x.pieces)


def test_channel_shuffle_has_one_quotient_per_index() -> None:
    x = physical("x", [N, 116, 28, 28])
    groups = ops.permute(ops.reshape(x, [N, 2, 58, 28, 28]), [0, 2, 1, 3, 4])
    (piece,) = ops.reshape(groups, [N, 116, 28, 28]).pieces
    assert str(piece.index[1]) == "58*_x1 - 115*floordiv(_x1, 2)"


def test_repeated_heads_have_one_quotient() -> None:
    x = physical("x", [1, 4, N, 64])
    wide = ops.broadcast(ops.expand(x, 2), [1, 4, 3, N, 64])
    (piece,) = ops.reshape(wide, [1, 12, N, 64]).pieces
    assert [str(i) for i in piece.index] == ["0", "floordiv(_x1, 3)", "_x2", "_x3"]


def test_hidden_pieces_go() -> None:
    x, new = physical("x", [8, 4]), physical("new", [8, 4])
    assert ops.update(x, new, [0, 0]) == new
    inside = ops.slices(ops.update(x, physical("row", [1, 4]), [3, 0]), 0, 3, 1)
    assert inside == physical("row", [1, 4])


def test_a_row_at_a_run_time_position_hides_no_more_than_itself() -> None:
    position = symbol("position")
    cache, row = physical("cache", [N, 64]), physical("row", [1, 64])
    written = ops.update(cache, row, [position, 0])
    assert [piece.home.name for piece in written.pieces] == ["row", "cache"]
    assert written.pieces[0].origin == (position, 0)


def test_indices_of_a_view_are_read_from_its_home() -> None:
    table, tokens = physical("table", [100, 8]), physical("tokens", [2, N])
    lookup = Lookup(Home("flat", (2 * N,)), (local(0),), 100)
    rows = ops.take(table, lookup, 0, 1, [2 * N, 8])
    direct = compose(rows, {"flat": ops.reshape(tokens, [2 * N])})
    assert {home.name for home in direct.homes} == {"table", "tokens"}
    copied = compose(rows, {"flat": ops.concat([tokens, tokens], 1)})
    assert "flat" in {home.name for home in copied.homes}


X = physical("x", [N, 24, 64])
WIDE = physical("wide", [N, 2304])
IMAGE = physical("image", [1, 56, 56, 96])


def windows(x: VirtualTensor) -> VirtualTensor:
    """Swin: the image rolled, then 64 windows of 49 pixels."""
    rolled = ops.roll(ops.roll(x, -3, 1), -3, 2)
    tiles = ops.permute(ops.reshape(rolled, [1, 8, 7, 8, 7, 96]), [0, 1, 3, 2, 4, 5])
    return ops.reshape(tiles, [64, 49, 96])


@pytest.mark.parametrize(
    ("tensor", "access", "run"),
    [
        (X, Access.IDENTITY, 1536 * N),
        (ops.reshape(X, [N * 2, 12, 64]), Access.VIEW, 1536 * N),
        (ops.slices(X, 0, 3, N - 3), Access.VIEW, 1536 * N - 4608),
        (ops.slices(physical("s", [1, N, 768]), 1, N - 1, 1), Access.VIEW, 768),
        (ops.permute(X, [1, 0, 2]), Access.RUNS, 64),
        (ops.slices(X, 1, 0, 12), Access.RUNS, 768),
        (ops.permute(ops.reshape(WIDE, [N, 3, 12, 64]), [1, 2, 0, 3]), Access.RUNS, 64),
        (merged(physical("x", [12, N, 64])), Access.RUNS, 64),
        (ops.concat([X, X], 1), Access.RUNS, 1536),
        (ops.concat([physical("a", [N, 4]), physical("b", [N, 6])], 1), Access.RUNS, 4),
        (windows(IMAGE), Access.RUNS, 96),
        (ops.permute(X, [0, 2, 1]), Access.STRIDED, 1),
        (ops.flip(X, 2), Access.STRIDED, 1),
        (ops.slices(X, 2, 0, 32, 2), Access.STRIDED, 1),
        (ops.repeat(X, 2, 2), Access.GATHER, 1),
    ],
    ids=lambda value: "" if isinstance(value, VirtualTensor) else str(value),
)
def test_classes(tensor: VirtualTensor, access: Access, run) -> None:
    profile = classify(tensor)
    assert (profile.access, profile.run) == (access, run)


def test_a_view_knows_its_offset() -> None:
    assert classify(ops.slices(X, 0, 3, 5)).offset == 3 * 24 * 64
    assert classify(ops.slices(X, 0, N - 1, 1)).offset == 1536 * N - 1536
