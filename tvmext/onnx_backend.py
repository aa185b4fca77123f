"""tvmext as a backend of ONNX's own interface, `onnx.backend.base`: what its test suite drives.

    from tvmext.onnx_backend import TvmextBackend
    TvmextBackend.prepare(model).run([x, y])

A model is compiled when it is prepared. Where an input decides about sizes in a way that has to be
known before (the target of a Resize, the axes of a ReduceSum), it is compiled by the first run
instead, for the values which that run gives to such inputs, and again when other values come. So it
is for the lengths of sequences, and the shapes of their elements.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TypeProto, ValueInfoProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep, namedtupledict

from . import api
from .build import CompileRequest
from .errors import InputError, UnsupportedError
from .frontends.onnx import settings, with_elements
from .frontends.onnx.elements import Elements
from .model_file import model_file
from .options import Options
from .runtime import CompiledModel

Compiler = Callable[[ModelProto, Options], CompiledModel]


class TvmextRep(BackendRep):
    """A prepared model; `bound` names the inputs whose values it is compiled for."""

    def __init__(self, model: ModelProto, options: Options, compiler: Compiler) -> None:
        self._model = model
        self._options = options
        self._compiler = compiler
        self._compiled: dict[Any, CompiledModel] = {}
        constants = {tensor.name for tensor in model.graph.initializer}
        self._names = [v.name for v in model.graph.input if v.name not in constants]
        self.bound: tuple[str, ...] = ()
        if not self._composed(model.graph.input):
            try:
                self._compiled[()] = compiler(model, options)
            except UnsupportedError:
                if not self._bind():
                    raise

    @staticmethod
    def _composed(values: Iterable[ValueInfoProto]) -> set[str]:
        """Names of the sequences and optionals."""
        return {value.name for value in values if not value.type.HasField("tensor_type")}

    def _bind(self) -> bool:
        """Compile for the values of inputs from now on; False if there are none to try."""
        tried, self.bound = bool(self.bound), self.bound or settings.inputs(self._model)
        return bool(self.bound) and not tried

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """The outputs, as a named tuple, for `inputs` in the order of the graph's inputs.

        A sequence is a list of arrays, an optional one of them or None.
        """
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if len(given) > len(self._names):
            raise InputError(
                f"{len(given)} inputs given, the model takes {len(self._names)}",
                hint=f"its inputs are {', '.join(self._names)}",
            )
        values = dict(zip(self._names, given))
        composed = {name: values.pop(name) for name in self._composed(self._model.graph.input)}
        try:
            results = self._run(values, composed)
        except UnsupportedError:
            if not self._bind():
                raise
            results = self._run(values, composed)
        outputs = self._model.graph.output
        names = [output.name for output in outputs]
        return namedtupledict("Outputs", names)(
            *(_joined(v.name, v.type, results) for v in outputs)
        )

    def _run(self, values: Mapping[str, Any], composed: Mapping[str, Any]) -> Mapping[str, Any]:
        fixed = {name: np.asarray(values[name]) for name in self.bound if name in values}
        key = tuple((name, v.dtype.str, v.shape, v.tobytes()) for name, v in fixed.items())
        kinds = {name: _kind(value) for name, value in composed.items()}
        whole = (*key, *((name, repr(kind)) for name, kind in kinds.items()))
        if whole not in self._compiled:
            model = with_elements(self._model, kinds) if kinds else self._model
            self._compiled[whole] = self._compiler(_with_constants(model, fixed), self._options)
        feeds = {name: value for name, value in values.items() if name not in fixed}
        for name, value in composed.items():
            if isinstance(value, list):
                feeds |= {f"{name}[{k}]": element for k, element in enumerate(value)}
            elif value is not None:
                feeds[name] = value
        return self._compiled[whole].run(feeds)


def _kind(value: Any) -> Elements:
    if value is None:
        return None
    if isinstance(value, list):
        return [(np.asarray(element).dtype, np.shape(element)) for element in value]
    return np.asarray(value).dtype, np.shape(value)


def _joined(name: str, declared: TypeProto, results: Mapping[str, Any]) -> Any:
    """An output of the model from those of the compiled one."""
    if declared.HasField("optional_type"):
        inner = declared.optional_type.elem_type
        return (
            _joined(name, inner, results) or None
            if inner.HasField("sequence_type")
            else results.get(name)
        )
    if not declared.HasField("sequence_type"):
        return results[name]
    names = itertools.takewhile(results.__contains__, (f"{name}[{k}]" for k in itertools.count()))
    return [results[element] for element in names]


class TvmextBackend(Backend):
    """`onnx.backend.base.Backend` for CPUs."""

    options = Options()

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **_: Any) -> TvmextRep:
        """Compile `model`. Raises what `tvmext.compile` raises."""
        if not cls.supports_device(device):
            raise InputError(f"no backend for the device {device}", hint="CPU")
        return TvmextRep(model, cls.options, cls.compile)

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kw: Any) -> Any:
        return cls.prepare(model, device, **kw).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Sequence[Any],
        device: str = "CPU",
        outputs_info: Any = None,
        **kw: Any,
    ) -> Any:
        """Run one node on arrays, in the newest operator set or that of ``opset_version``."""
        arrays = [np.asarray(value) for value in inputs]
        names = [name for name in node.input if name]
        types = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in zip(names, arrays)
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "node", types, outputs)
        version = kw.pop("opset_version", None)
        imports = [helper.make_opsetid(node.domain, version)] if version else None
        model = helper.make_model(graph, opset_imports=imports)
        return cls.run_model(model, arrays, device, **kw)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"

    @staticmethod
    def compile(model: ModelProto, options: Options) -> CompiledModel:
        return api.compile(model, options=options)


class InProcessBackend(TvmextBackend):
    """Compiles in the caller's process: many times faster for small models, but a crash of the code
    generator is a crash of the caller, who has to be ready for it."""

    @staticmethod
    def compile(model: ModelProto, options: Options) -> CompiledModel:
        with (
            tempfile.TemporaryDirectory(prefix="tvmext-") as folder,
            model_file(model) as (path, _),
        ):
            output = str(Path(folder) / "model.so")
            request = CompileRequest(
                model=str(path),
                output=output,
                target="llvm",
                dims={},
                options=options,
                trust=False,
                model_format="onnx",
                name="model",
            )
            api.compile_here(request, lambda *_: None)
            return CompiledModel(output)


def _with_constants(model: ModelProto, values: dict[str, np.ndarray]) -> ModelProto:
    """The model with inputs as constants."""
    bound = ModelProto()
    bound.CopyFrom(model)
    kept = [value for value in model.graph.input if value.name not in values]
    del bound.graph.input[:]
    bound.graph.input.extend(kept)
    bound.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in values.items()
    )
    return bound
