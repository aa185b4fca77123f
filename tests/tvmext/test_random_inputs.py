"""Random inputs: sizes that fit, indices in range, masks that mask nothing out as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.tvmext.networks import FLOAT, INT64, model_of
from tvmext.errors import DimError
from tvmext.frontends.dims import Dim, Guard, parse
from tvmext.frontends.model import TensorSpec
from tvmext.verification.inputs import choose_sizes, random_inputs
from tvmext.verification.limits import index_limits
from tvmext.verification.source import OnnxSource


def test_indices_are_in_range_through_casts_and_reshapes() -> None:
    model = model_of(
        [
            helper.make_node("Cast", ["ids"], ["wide"], to=INT64),
            helper.make_node("Unsqueeze", ["wide", "axes"], ["column"]),
            helper.make_node("Gather", ["table", "column"], ["rows"]),
            helper.make_node("Gather", ["small", "wide"], ["more"]),
            helper.make_node("Gather", ["table", "places"], ["columns"], axis=1),
            helper.make_node("Cast", ["mask"], ["float_mask"], to=FLOAT),
            helper.make_node("Mul", ["rows", "float_mask"], ["y"]),
        ],
        {
            "ids": (TensorProto.INT32, ["n"]),
            "places": (INT64, [2]),
            "mask": (INT64, ["n", 1, 1]),
            "pixels": (TensorProto.UINT8, ["n", 3]),
        },
        {"y": (FLOAT, None)},
        {
            "table": np.zeros((30, 7), np.float32),
            "small": np.zeros((20, 7), np.float32),
            "axes": np.array([1]),
        },
    )
    source = OnnxSource(model)
    limits = index_limits(source.graph, source.shapes)
    assert limits == {"ids": 20, "places": 7, "pixels": 256}


def test_random_inputs_are_in_range_and_repeatable() -> None:
    ids = TensorSpec("ids", "int64", (parse("batch"),))

    def draw(seed: int) -> np.ndarray:
        return random_inputs([ids], {"batch": 5000}, {"ids": 50}, seed)["ids"]

    assert draw(0).shape == (5000,)
    assert set(draw(0)) == set(range(50))
    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_masks_start_with_a_one() -> None:
    shapes = {"mask": ("n", 1), "flags": ("n", 4), "count": (), "empty": ("n", 0)}
    for dtype in ("bool", "int64", "int32"):
        specs = [
            TensorSpec(name, dtype, tuple(parse(str(dim)) for dim in shape))
            for name, shape in shapes.items()
        ]
        drawn = random_inputs(specs, {"n": 500}, {}, seed=0)
        assert drawn["mask"].all()
        assert drawn["flags"][:, 0].all()
        assert set(drawn["flags"].reshape(-1).tolist()) == {0, 1}
        assert {name: str(array.dtype) for name, array in drawn.items()} == dict.fromkeys(
            shapes, dtype
        )


class Facts:
    """As much of a compiled model as the choice of sizes looks at."""

    def __init__(self, dims: list[Dim], *guards: Guard) -> None:
        self.metadata = self
        self.dims = {dim.name: dim for dim in dims}
        self.guards = guards


def test_sizes_fit_ranges_guards_and_what_is_fixed() -> None:
    dims = [Dim("h", 1, 512), Dim("w", 1, 512), Dim("batch", opt=6), Dim("seq", 100, 200)]
    guards = (Guard(32, "divides", parse("h")), Guard(parse("h"), "<=", parse("2*w")))
    sizes = choose_sizes({"w": 50}, Facts(dims, *guards))  # type: ignore[arg-type]
    assert sizes == {"h": 32, "w": 50, "batch": 6, "seq": 128}


def test_dims_get_different_sizes() -> None:
    sizes = choose_sizes({}, Facts([Dim(name) for name in "abc"]))  # type: ignore[arg-type]
    assert len(set(sizes.values())) == 3


def test_sizes_that_cannot_be_found() -> None:
    facts = Facts([Dim("n", label="N")], Guard(1000, "divides", parse("n + 1")))
    with pytest.raises(DimError, match="no sizes of N that satisfy 1000 divides n \\+ 1"):
        choose_sizes({}, facts)  # type: ignore[arg-type]
