"""Arrays in and out: ``.npz`` files, and inputs made up where none are given."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tvmext.errors import InputError
from tvmext.frontends.dims import Dim, as_symbol, bind_dims, evaluate

if TYPE_CHECKING:
    import numpy as np

    from tvmext.frontends.model import TensorSpec

FILL_MODES = ("random", "zeros", "ones")


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file by name; unpickles nothing. Raises InputError."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            return dict(archive)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error)
    raise InputError(
        f"cannot read inputs from '{path}': {reason}",
        hint="an .npz file with one array per input: numpy.savez('x.npz', input_name=array)",
    )


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz`` file, whole or not at all. Raises ArtifactError if it cannot be written."""
    import numpy as np

    from tvmext.artifact import write_atomically

    with write_atomically(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def fill(
    inputs: Sequence[TensorSpec],
    given: Mapping[str, np.ndarray],
    dims: Mapping[str, Dim],
    sizes: Mapping[str, int],
    mode: str,
) -> dict[str, np.ndarray]:
    """`given`, with an array made up for every input that is not in it.

    A dim has the size that `sizes` says, else that of the given arrays, else the one its range
    names as usual, else the least one that is not 0. `mode` is one of `FILL_MODES`; the same call
    makes the same arrays. Raises DimError for a size that a dim cannot have.
    """
    fixed, free = bind_dims(sizes, dims)
    for spec in inputs:
        for dim, size in zip(spec.shape, given[spec.name].shape if spec.name in given else ()):
            name = as_symbol(dim)
            if name in free:
                fixed[name] = size
                del free[name]
    fixed |= {name: dim.opt or max(dim.low, 1) for name, dim in free.items()}
    made = {
        spec.name: _array(spec.dtype, [evaluate(dim, fixed) for dim in spec.shape], mode)
        for spec in inputs
        if spec.name not in given
    }
    return {**given, **made}


def _array(dtype: str, shape: Sequence[int], mode: str) -> np.ndarray:
    import ml_dtypes  # gives NumPy the names bfloat16, float8_e4m3fn, ...
    import numpy as np

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    if mode != "random":
        return np.full(shape, mode == "ones", dtype=kind)
    rng = np.random.default_rng(0)
    if kind.kind in "iub":
        return rng.integers(0, 2, shape).astype(kind)
    return rng.standard_normal(shape, dtype=np.float32).astype(kind)
