"""Where expected outputs come from: ONNX Runtime, onnx's own evaluator, or a file."""

from __future__ import annotations

import ctypes
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tvmext.arch import from_device
from tvmext.errors import InputError, ModelError, OptionError, ToolchainError

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Reference:
    """Gives outputs by name for inputs by name. `title` says how; a file does not compute."""

    title: str
    run: Callable[[Arrays], Arrays]
    computes: bool = True


KNOWN = ("auto", "onnxruntime", "onnx")


def check_choice(choice: str | Path) -> None:
    """Raises what this reference would raise for every model."""
    if Path(choice).suffix == ".npz":
        read_arrays(Path(choice), "expected outputs")
    elif choice not in KNOWN:
        raise OptionError(f"'{choice}' is not a reference", hint=f"{', '.join(KNOWN)}, or FILE.npz")
    elif choice == "onnxruntime" and not find_spec("onnxruntime"):
        raise ToolchainError("ONNX Runtime is not installed", hint="pip install 'tvmext[verify]'")


def make_reference(model: str | bytes, choice: str) -> Reference:
    """The reference that `choice` names, for an ONNX model given as path or bytes.

    "auto" takes ONNX Runtime if it is installed and can load the model, else onnx.reference;
    "onnxruntime" and "onnx" insist. Raises ToolchainError if it is not installed, ModelError if it
    cannot load the model, OptionError for another name.
    """
    check_choice(choice)
    if choice == "onnx":
        return _onnx_reference(model)
    if choice == "onnxruntime":
        return _onnx_runtime(model)
    if find_spec("onnxruntime"):
        try:
            return _onnx_runtime(model)
        except ModelError:  # newer opsets and types that ONNX Runtime does not have yet
            return _onnx_reference(model)
    return _onnx_reference(model)


def _onnx_runtime(model: str | bytes) -> Reference:
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel

    def loaded(level: Any, **entries: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what matters comes as an exception
        options.graph_optimization_level = level
        for name, value in entries.items():
            options.add_session_config_entry(f"session.{name}", value)
        return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])

    session = None
    if _would_saturate(model):
        with suppress(Exception):  # not for int8 data, whose sums are right without
            session = loaded(levels.ORT_ENABLE_EXTENDED, x64quantprecision="1")
    try:
        # Fusions that approximate are left out; a reference should compute what the graph says.
        session = session or loaded(levels.ORT_ENABLE_BASIC)
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load the model: {error}") from error
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        values = {name: _to_ort(array) for name, array in inputs.items()}
        results = session.run_with_ort_values(names, values)
        return {name: _from_ort(result) for name, result in zip(names, results)}

    return _explaining(f"ONNX Runtime {onnxruntime.__version__}", run)


INTEGER_PRODUCTS = {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"}
INTEGER_PRODUCTS |= {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", "QAttention"}


def _would_saturate(model: str | bytes) -> bool:
    """Whether ONNX Runtime sums products of bytes by vpmaddubsw here, which is wrong for large ones
    (its documentation: quantization, "U8S8 saturation")."""
    arch = from_device()
    if arch.isa != "x86_64" or arch.has_vnni:
        return False
    try:
        if isinstance(model, bytes):
            graph = onnx.load_model_from_string(model).graph
        else:
            graph = onnx.load(model, load_external_data=False).graph
    except Exception:  # ONNX Runtime says what is wrong with it
        return False
    return any(node.op_type in INTEGER_PRODUCTS for node in graph.node)


def _to_ort(array: np.ndarray) -> Any:
    from onnx.helper import np_dtype_to_tensor_dtype
    from onnxruntime import OrtValue

    array = np.asarray(array, order="C")
    if array.dtype.isbuiltin == 1:
        return OrtValue.ortvalue_from_numpy(array)
    bits = array.view(f"u{array.dtype.itemsize}")  # ml_dtypes: known to ONNX, not to NumPy
    kind = np_dtype_to_tensor_dtype(array.dtype)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)


def _from_ort(value: Any) -> np.ndarray:
    from onnx.helper import tensor_dtype_to_np_dtype

    dtype = tensor_dtype_to_np_dtype(value.element_type())
    if dtype.isbuiltin == 1:
        return value.numpy()
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, dtype).reshape(value.shape())


def _onnx_reference(model: str | bytes) -> Reference:
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(model)
    except Exception as error:
        raise ModelError(f"onnx.reference cannot load the model: {error}") from error

    def run(inputs: Arrays) -> Arrays:
        results = evaluator.run(None, inputs)
        return {name: np.asarray(r) for name, r in zip(evaluator.output_names, results)}

    return _explaining(f"onnx.reference {onnx.__version__}", run)


def _explaining(title: str, run: Callable[[Arrays], Arrays]) -> Reference:
    """The reference, with what goes wrong in a run as a ModelError."""

    def explained(inputs: Arrays) -> Arrays:
        try:
            return run(inputs)
        except Exception as error:  # whatever a kernel or a Python operator raises
            raise ModelError(
                f"{title} cannot run the model on these inputs: {error}",
                hint="is the library made from this model? is this a size that the model takes?",
            ) from error

    return Reference(title, explained)


def read_arrays(path: Path, what: str) -> Arrays:
    """The arrays of an ``.npz`` file by name; `what` says in errors what they are.

    Raises InputError if it cannot be read or holds pickled objects, which are never loaded.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is not an .npz file")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return dict(archive)
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error)
    raise InputError(
        f"cannot read {what} from '{path}': {reason}",
        hint="an .npz file with one array per name: numpy.savez('x.npz', name=array)",
    )
