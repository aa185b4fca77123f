"""Arrays in and out: inputs made up where none are given, and outputs as ``.npz`` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from tvmext.runtime import CompiledModel

FILL_MODES = ("random", "zeros", "ones")


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz`` file, whole or not at all. Raises ArtifactError if it cannot be written."""
    import numpy as np

    from tvmext.artifact import write_atomically

    with write_atomically(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all. Raises ArtifactError if it cannot be written."""
    from tvmext.artifact import write_atomically

    with write_atomically(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def fill(
    given: Mapping[str, np.ndarray],
    compiled: CompiledModel,
    dims: Mapping[str, int],
    mode: str,
) -> dict[str, np.ndarray]:
    """`given`, with an array made up for every input of the model that is not in it.

    A dim has the size that `dims` says, else that of the given arrays, else the one its range names
    as usual, else a small one that the model takes. `mode` is one of `FILL_MODES`; the same call
    makes the same arrays. Raises DimError for a size that a dim cannot have, or that a given array
    has not.
    """
    import numpy as np

    from tvmext.verification.inputs import choose_sizes, fixed_sizes, random_inputs, shape_of

    missing = [spec for spec in compiled.inputs if spec.name not in given]
    sizes = choose_sizes(fixed_sizes(dims, given, compiled), compiled)
    if mode == "random":
        return {**given, **random_inputs(missing, sizes, {}, seed=0)}
    made = {
        spec.name: np.full(shape_of(spec, sizes), mode == "ones", np.dtype(spec.dtype))
        for spec in missing
    }
    return {**given, **made}
