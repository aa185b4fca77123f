"""Programs of torch.export as input. torch is not among the requirements of the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tvmext
from tvmext.errors import DimError, ModelError, UnsupportedError
from tvmext.frontends import load

torch = pytest.importorskip("torch")
from torch.export import Dim, export  # noqa: E402

nn = torch.nn


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, ids: Any) -> Any:
        tokens = self.layer(self.embed(ids))
        return tokens, tokens.mean(1)


def same(model: Any, exported: Any, *batches: tuple[Any, ...]) -> None:
    compiled = tvmext.compile(exported)
    for batch in batches:
        names = [spec.name for spec in compiled.inputs]
        outputs = compiled.run({name: array.numpy() for name, array in zip(names, batch)})
        with torch.no_grad():
            wanted = model(*batch)
        for got, want in zip(outputs.values(), wanted if isinstance(wanted, tuple) else [wanted]):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


def test_an_image_network_of_any_size() -> None:
    model = Pixels().eval()
    sizes = {"x": {0: Dim("batch", min=1, max=64), 2: Dim.DYNAMIC}}
    exported = export(model, (torch.rand(4, 3, 16, 16),), dynamic_shapes=sizes)
    dims = load(exported).dims
    assert (dims["x_0"].low, dims["x_0"].high) == (1, 64)
    assert (dims["x_2"].low, dims["x_2"].high) == (0, None), "torch writes 2 where nothing is said"
    same(model, exported, (torch.rand(4, 3, 16, 16),), (torch.rand(1, 3, 9, 16),))
    with pytest.raises(DimError, match="outside its range 1:64"):
        load(exported, {"x_0": 65})


def test_an_encoder_of_any_length() -> None:
    model = Encoder().eval()
    sizes = {"ids": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}}
    exported = export(model, (torch.randint(0, 100, (2, 11)),), dynamic_shapes=sizes)
    same(model, exported, *[(torch.randint(0, 100, size),) for size in ((2, 11), (1, 5), (3, 1))])


def test_operators_that_are_missing_are_all_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.special.i1(x) + torch.lgamma(x)

    with pytest.raises(UnsupportedError, match=r"2 operators(?s:.*)lgamma(?s:.*)special_i1"):
        tvmext.compile(export(Odd(), (torch.rand(3),)))


def test_what_the_importer_fails_on() -> None:
    class Long(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.fft.rfft(x).abs()

    with pytest.raises((UnsupportedError, ModelError)):
        tvmext.compile(export(Long(), (torch.rand(8),)))
