"""Random inputs that a model can digest: sizes that its guards allow, indices that are in range.

| dtype | values |
|---|---|
| floats | standard normal |
| bool | true for three of four, and first along the last dim |
| integers that index a dim of known size (Gather and the like) | [0, size) |
| uint8 that is cast to a float: pixels | [0, 256) |
| other integers: masks, token types, counts | 0 or 1, 1 first along the last dim |

Masks start with a one so that no row of an attention is masked out as a whole, which is undefined.
An integer input is followed through casts, reshapes and arithmetic-free movement to its uses; of
several uses the smallest size counts.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence

import ml_dtypes  # noqa: F401  gives NumPy the dtypes bfloat16 and float8
import numpy as np

from tvmext.errors import DimError
from tvmext.frontends.dims import Dim, as_symbol, bind_dims, evaluate
from tvmext.frontends.model import TensorSpec
from tvmext.runtime import CompiledModel

_CANDIDATES = (2, 3, 1, 4, 5, 8, 7, 16, 32, 64, 128, 224, 256, 512)
_TRIES = 100_000


def choose_sizes(fixed: Mapping[str, int], compiled: CompiledModel) -> dict[str, int]:
    """A size for every dim: as `fixed` says, else the dim's `opt`, else small ones that fit.

    Different dims get different sizes where that is possible, so that mixed-up dims show. Raises
    DimError if no combination of the sizes tried satisfies the guards.
    """
    dims, guards = compiled.metadata.dims, compiled.metadata.guards
    free = [dim for name, dim in dims.items() if name not in fixed]
    candidates = [_candidates(dim, shift) for shift, dim in enumerate(free)]
    for sizes in itertools.islice(itertools.product(*candidates), _TRIES):
        chosen = dict(fixed) | {dim.name: size for dim, size in zip(free, sizes)}
        if all(guard.holds(chosen) for guard in guards if guard.names <= chosen.keys()):
            return chosen
    names = ", ".join(dim.title for dim in free) or "the dims given"
    needs = "; ".join(map(str, guards))
    raise DimError(f"found no sizes of {names} that satisfy {needs}", hint="give sizes with dims")


def fixed_sizes(
    asked: Mapping[str, int], given: Mapping[str, np.ndarray], compiled: CompiledModel
) -> dict[str, int]:
    """The sizes that the caller chose: `asked`, by the names of dims, and those of given arrays.

    Raises DimError for a dim that is not there, and for arrays of other sizes than `asked`.
    """
    named, _ = bind_dims(asked, compiled.metadata.dims)
    fixed = dict(named)
    for spec in compiled.inputs:
        shape = given[spec.name].shape if spec.name in given else ()
        for axis, (dim, size) in enumerate(zip(spec.shape, shape)):
            name = as_symbol(dim)
            if name is None:
                continue
            if named.get(name, size) != size:
                raise DimError(
                    f"dim '{compiled.metadata.dims[name].title}' is given as {named[name]}, but "
                    f"input '{spec.name}' has size {size} on axis {axis}",
                    hint="leave that size out, or give arrays that have it",
                )
            fixed.setdefault(name, size)
    return fixed


def random_inputs(
    inputs: Sequence[TensorSpec],
    sizes: Mapping[str, int],
    limits: Mapping[str, int],
    seed: int,
) -> dict[str, np.ndarray]:
    """One array per input; `limits` gives exclusive upper bounds of integer inputs by name."""
    rng = np.random.default_rng(seed)
    return {
        spec.name: _random(rng, np.dtype(spec.dtype), shape_of(spec, sizes), limits.get(spec.name))
        for spec in inputs
    }


def _candidates(dim: Dim, shift: int) -> list[int]:
    if dim.opt is not None:
        return [dim.opt]
    rotated = _CANDIDATES[shift % 3 :] + _CANDIDATES[: shift % 3]
    sizes = [size for size in rotated if dim.low <= size and size <= (dim.high or size)]
    return sizes or [dim.low]


def shape_of(spec: TensorSpec, sizes: Mapping[str, int]) -> list[int]:
    """The shape of an input. Raises DimError for one that this machine has not the memory for."""
    shape = [evaluate(dim, sizes) for dim in spec.shape]
    size = math.prod(shape) * np.dtype(spec.dtype).itemsize
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise DimError(
            f"input '{spec.name}' with the shape {shape} takes {size / 1e9:.3g} GB, and this "
            f"machine has {memory / 1e9:.3g} GB of memory",
            hint=f"smaller sizes of its dims: {spec}",
        )
    return shape


def _random(
    rng: np.random.Generator, dtype: np.dtype, shape: Sequence[int], limit: int | None
) -> np.ndarray:
    if dtype.kind in "iu" and limit is not None:
        high = min(limit, int(np.iinfo(dtype).max) + 1)
        return rng.integers(0, max(high, 1), shape, dtype=dtype)
    if dtype.kind in "biu":
        mask = np.asarray(rng.random(shape) < 0.75, dtype)
        if shape:
            mask[..., :1] = 1
        return mask
    if dtype.kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return rng.standard_normal(shape, dtype=np.float32).astype(dtype)
