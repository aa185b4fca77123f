"""Every network of the zoo imports with known shapes, with its stored sizes and with free ones.

Weights that are random numbers are left as zeros in a sparse file of external data: an import looks
at their dims only, and mapping them costs nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from tvm import relax

from tests.zoo import light
from tvmext.frontends import load
from tvmext.frontends.model import Model

ZOO = Path(light.__file__).parent
NETWORKS = sorted(path.stem for path in ZOO.glob("*.onnx"))
STATIC_ONLY = {
    "mamba.dynamo.static": "exported with fixed sizes",
}
LARGEST_WEIGHT = 1 << 31


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("zoo") / "zeros.bin"
    with path.open("wb") as file:
        file.truncate(LARGEST_WEIGHT)
    return path


def network(name: str, weights_file: Path) -> tuple[Path, dict[str, int]]:
    """The path of a network beside `weights_file`, and its stored sizes."""
    proto = onnx.load(ZOO / f"{name}.onnx", load_external_data=False)
    spec = json.loads({p.key: p.value for p in proto.metadata_props}["light.inputs"])
    for tensor in light.tensors(proto):
        if any(entry.value == "uniform" for entry in tensor.external_data):
            del tensor.external_data[:]
            tensor.external_data.add(key="location", value=weights_file.name)
    path = weights_file.parent / f"{name}.onnx"
    light.save(light.materialise(proto), path)
    declared = {
        dim.dim_param for value in proto.graph.input for dim in value.type.tensor_type.shape.dim
    }
    sizes = {key: size for key, size in spec["dims"].items() if key in declared}
    if "total" in declared:
        sizes["total"] = spec["dims"]["past"] + spec["dims"]["seq"]
    return path, sizes


@pytest.mark.parametrize("name", NETWORKS)
def test_with_fixed_sizes(name, weights_file):
    path, sizes = network(name, weights_file)
    model = load(path, sizes)
    assert not model.dims and not model.guards
    assert_every_shape_known(model)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in STATIC_ONLY])
def test_with_free_sizes(name, weights_file):
    path, sizes = network(name, weights_file)
    model = load(path)
    assert model.dims.keys() <= sizes.keys()
    assert all(guard.holds(sizes) for guard in model.guards)
    assert_every_shape_known(model)


def assert_every_shape_known(model: Model) -> None:
    """Each value of main has a type with all its dims, and main is well formed."""
    relax.analysis.well_formed(model.mod)
    main = model.mod["main"]
    assert [var.name for var in main.params[len(model.inputs) :]] == list(model.params)
    for var, array in zip(main.params[len(model.inputs) :], model.params.values()):
        assert tuple(map(int, var.ty.shape.values)) == array.shape
    for block in main.body.blocks:
        for binding in block.bindings:
            for kind in tensors_of(binding.var.ty):
                assert isinstance(kind.shape, relax.ShapeExpr), f"{binding.var.name}: {kind}"


def tensors_of(kind) -> list[relax.TensorType]:
    """The tensor types in a type; shapes have none."""
    if isinstance(kind, relax.TupleType):
        return [tensor for field in kind.fields for tensor in tensors_of(field)]
    return [kind] if isinstance(kind, relax.TensorType) else []
