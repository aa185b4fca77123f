"""A compiled model in this process: arrays in, arrays out."""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmext.arch.cuda_driver import load_runtime
from tvmext.artifact import (
    ArtifactMetadata,
    check_runs_here,
    read_metadata,
    write_atomically,
)
from tvmext.errors import ArtifactError, DimError, InputError, InternalError, OptionError
from tvmext.frontends.model import TensorSpec

from .signature import Signature
from .tensors import Input, Output
from .threads import use_threads

_COPY_BYTES = 1 << 26
_KNOWN_SHAPES = 256  # combinations of input shapes whose check is remembered
_NAMED = re.compile(r'ErrorContext\(match_cast, at=("(?:[^"\\]|\\.)*")\)')
_SIZES = re.compile(r"\((-?\d+) vs\. (-?\d+)\)")


class CompiledModel:
    """A compiled network, ready to run.

    `run` may be called from several threads; calls on one model take turns, calls on different
    models run side by side. TVM keeps a pool of worker threads for each thread that calls it, so
    call from few threads.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str | None = None,
        num_threads: int | None = None,
        deferred: bool = False,
    ) -> None:
        """Load a library that tvmext wrote.

        `device` is what it was compiled for: "cpu", or "cuda" for the first GPU. `num_threads`
        limits the cores one run uses; the default is as many as TVM_NUM_THREADS says, else all
        physical cores (threads.py). With `deferred`, code for a GPU is loaded by the first run: it
        may have been compiled for a machine that is not this one. Raises ArtifactError if the file
        is not such a library or cannot run on this machine.
        """
        self.metadata: ArtifactMetadata = read_metadata(path)
        self.device = "cuda" if self.metadata.target["kind"] == "cuda" else "cpu"
        if device not in (None, self.device):
            raise OptionError(
                f"{path} was compiled for {self.device}, not for {device}",
                hint="leave the device out; --target says what tvmext compile compiles for",
            )
        self.num_threads = num_threads
        self._file = os.open(path, os.O_RDONLY)  # for save(), also when the path is gone
        weakref.finalize(self, os.close, self._file)
        self._path = Path(path)
        self._machine: relax.VirtualMachine | None = None
        self._loaded: Callable[..., Any] | None = None
        if not (deferred and self.device == "cuda"):
            self._load(self._path)
        self._signature = Signature(self.metadata)
        alignment = self.metadata.input_alignment
        self._slots = [Input(spec, alignment) for spec in self.inputs]
        weights = self.metadata.weight_outputs
        self._results = [Output(spec, spec.name in weights) for spec in self.outputs]
        # Without a reference to the model, which would keep its weights until a garbage collection.
        check = self._signature.sizes
        self._check = lru_cache(_KNOWN_SHAPES)(lambda *shapes: check(shapes))
        self._lock = threading.Lock()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of every input, in the order of positional arguments."""
        return self.metadata.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of every output, in the order of the dict that `run` returns."""
        return self.metadata.outputs

    @property
    def num_threads(self) -> int | None:
        """The most threads that a run uses; None for TVM_NUM_THREADS, else all physical cores."""
        return self._num_threads

    @num_threads.setter
    def num_threads(self, value: int | None) -> None:
        if value is not None and value < 1:
            raise OptionError(f"num_threads is {value}", hint="1 or more, or None for all cores")
        self._num_threads = value

    def run(self, *inputs: Any) -> dict[str, np.ndarray]:
        """Compute the outputs: ``run({"x": a, "mask": b})`` or ``run(a, b)``.

        An input is a NumPy array, a torch tensor, a number, or anything with ``__dlpack__`` on the
        CPU. It is read in place if it is contiguous and aligned as `metadata` says, else
        copied. The arrays returned are the caller's own. What was given for a donated input
        (`Options.donate`) may be overwritten, and the output that updates it may lie in the same
        memory: use the output from then on. Raises InputError for a wrong name, dtype, rank or
        fixed size or donated memory that is given twice, DimError for sizes that the model does not
        take; no dtype is cast.
        """
        values = self._signature.order(inputs)
        arrays = [slot.accept(value) for slot, value in zip(self._slots, values)]
        self._check(*[array.shape for array in arrays])
        with self._lock:
            use_threads(self._num_threads)
            main = self._main()
            tensors = [slot.bind(array) for slot, array in zip(self._slots, arrays)]
            if self.metadata.updated_inputs:
                self._check_donated(tensors)
            if self.device == "cuda":
                tensors = [_on_gpu(tensor) for tensor in tensors]
            try:
                result = main(*tensors)
            except Exception as error:
                raise _failure(error) from error
            return self._own(result, tensors)

    def sizes(self, *inputs: Any) -> dict[str, int]:
        """The sizes of the free dims that inputs have, given as for `run`, which are checked so."""
        values = self._signature.order(inputs)
        arrays = [slot.accept(value) for slot, value in zip(self._slots, values)]
        return self._check(*[array.shape for array in arrays])

    def save(self, path: str | Path) -> None:
        """Write the library to `path`, whole or not at all. Raises ArtifactError."""
        with write_atomically(path) as unfinished, unfinished.open("wb") as file:
            position = 0
            while sent := os.sendfile(file.fileno(), self._file, position, _COPY_BYTES):
                position += sent

    @property
    def machine(self) -> relax.VirtualMachine:
        """TVM's virtual machine that runs the library, for those who set instruments on it."""
        self._main()
        return self._machine

    def _load(self, path: Path) -> Callable[..., Any]:
        check_runs_here(self.metadata, self._path)
        self._machine, library = _load_library(path, self.device)
        if self.device == "cuda":  # the library itself would keep what lies on the GPU
            weakref.finalize(self, library.get_function("tvmext_release_weights", True))
        self._loaded = self._machine["main"]
        return self._loaded

    def _main(self) -> Callable[..., Any]:
        """The function ``main`` of the library."""
        if self._loaded is None:
            with tempfile.TemporaryDirectory(prefix="tvmext-") as folder:
                copy = Path(folder) / "model.so"
                self.save(copy)
                return self._load(copy)
        return self._loaded

    def _own(self, result: Any, tensors: list[Any]) -> dict[str, np.ndarray]:
        """The results by name, in memory of their own or in that of the input that they update."""
        given_away = self.metadata.updated_inputs.values()
        taken = [
            slot.span(tensor)
            for slot, tensor in zip(self._slots, tensors)
            if slot.spec.name not in given_away or slot.holds(tensor)
        ]
        owned = {}
        results = (result,) if len(self._results) == 1 else result
        for output, tensor in zip(self._results, results):
            owned[output.spec.name] = output.own(tensor, taken)
            taken.append(output.span(tensor))
        return owned

    def _check_donated(self, tensors: list[Any]) -> None:
        """Raises InputError where what a run writes to is given for another input as well."""
        spans = [slot.span(tensor) for slot, tensor in zip(self._slots, tensors)]
        names = [spec.name for spec in self.inputs]
        for name in set(self.metadata.updated_inputs.values()):
            low, high = spans[names.index(name)]
            for other, (start, end) in zip(names, spans):
                if other != name and start < high and low < end:
                    raise InputError(
                        f"inputs '{name}' and '{other}' share memory that a run overwrites",
                        hint=f"a copy for '{other}'",
                    )

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(map(str, specs)) for specs in (self.inputs, self.outputs))
        return f"CompiledModel({inputs} -> {outputs})"


def load(
    path: str | Path, device: str | None = None, num_threads: int | None = None
) -> CompiledModel:
    """A model that was compiled and saved before; see `CompiledModel`."""
    return CompiledModel(path, device=device, num_threads=num_threads)


def _load_library(path: Path, device: str) -> tuple[relax.VirtualMachine, Any]:
    """A virtual machine for the library, and the library."""
    try:
        if device == "cuda":
            load_runtime()
        library = tvm.runtime.load_module(str(path.resolve()))
        machine = relax.VirtualMachine(library, tvm.device(device))
        machine["main"]  # there has to be one
        return machine, library
    except Exception as error:
        raise ArtifactError(
            f"cannot load {path}: {error}", hint="compile the model again with this version"
        ) from error


def _on_gpu(tensor: Any) -> Any:
    """A copy of a host tensor in the memory of the first GPU."""
    copy = tvm.runtime.empty(tuple(tensor.shape), str(tensor.dtype), tvm.cuda())
    return copy.copyfrom(tensor)


def _unfitting(text: str) -> str:
    """Whose sizes do not fit, and which: of an error that passes/name_matches.py gave a name."""
    named, sizes = _NAMED.search(text), _SIZES.search(text)
    if not named or not sizes:
        return text.strip().splitlines()[-1]
    found = sorted(map(int, sizes.groups()))
    if found[0] >= 0:
        what = f"sizes {found[0]} and {found[1]}, not equal"
    else:  # what computes sizes gives -1 where none would do
        what = f"size {found[0]}" if found[0] < -1 else "size -1, or no size that fits"
    return f"{json.loads(named[1])}: {what}"


def _failure(error: Exception) -> Exception:
    """What went wrong in a run: data that the model is not valid for, or a defect."""
    text = str(error)
    if "ErrorContext(match_cast" in text:
        return DimError(
            f"the data leads to sizes that do not fit the model: {_unfitting(text)}",
            hint="shapes, axes and numbers among the inputs must fit the tensors they are for",
        )
    if isinstance(error, ValueError) and "loop" in text:
        return InputError(f"the model failed while it ran: {text}")
    return InternalError(f"the model failed while it ran: {text}")
