"""tvmext as a backend of ONNX's own interface, `onnx.backend.base`: what its test suite drives.

    from tvmext.onnx_backend import TvmextBackend
    TvmextBackend.prepare(model).run([x, y])

A model is compiled when it is prepared. Where an input decides about sizes in a way that has to be
known before (the target of a Resize, the axes of a ReduceSum), it is compiled by the first run
instead, for the values which that run gives to such inputs, and again when other values come.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep, namedtupledict

from . import api
from .build import CompileRequest
from .errors import InputError, UnsupportedError
from .frontends.onnx import settings
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
        try:
            self._compiled[()] = compiler(model, options)
        except UnsupportedError:
            self.bound = settings.inputs(model)
            if not self.bound:
                raise

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """The outputs, as a named tuple, for `inputs` in the order of the graph's inputs."""
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if len(given) > len(self._names):
            raise InputError(
                f"{len(given)} inputs given, the model takes {len(self._names)}",
                hint=f"its inputs are {', '.join(self._names)}",
            )
        values = dict(zip(self._names, given))
        fixed = {name: np.asarray(values.pop(name)) for name in self.bound if name in values}
        key = tuple((name, v.dtype.str, v.shape, v.tobytes()) for name, v in fixed.items())
        if key not in self._compiled:
            self._compiled[key] = self._compiler(_with_constants(self._model, fixed), self._options)
        results = self._compiled[key].run(values)
        names = [output.name for output in self._model.graph.output]
        return namedtupledict("Outputs", names)(*(results[name] for name in names))


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
