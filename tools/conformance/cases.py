"""ONNX's own tests, as its package holds them: nodes, small networks, networks without weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, OptionalProto, SequenceProto, TensorProto, numpy_helper

SUITES = ("node", "simple", "pytorch-operator", "pytorch-converted", "light")
STRING_OPS = frozenset({"StringConcat", "StringSplit", "StringNormalizer", "RegexFullMatch"})
SEQUENCE_OPS = frozenset({
    "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt",
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SequenceMap", "SplitToSequence",
})  # fmt: skip
SEQUENCE, OPTIONAL = "sequence_type", "optional_type"


def load(suite: str) -> list[Any]:
    """The test cases of a suite, as ONNX's loader has them."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the node tests are computed when they are listed
        cases = load_model_tests(kind="real" if suite == "light" else suite)
    if suite == "light":
        return [case for case in cases if case.url and "/light/" in case.url]
    return cases


def model_of(case: Any) -> ModelProto:
    if case.model is not None:
        return case.model
    if case.model_dir is not None:
        return onnx.load(Path(case.model_dir) / "model.onnx")
    return onnx.load(_light_file(case))


def _light_file(case: Any) -> Path:
    return Path(onnx.__file__).parents[1] / case.url


def data_of(case: Any, model: ModelProto) -> Iterator[tuple[list[Any], list[Any]]]:
    """(inputs, expected outputs) of each data set."""
    if case.data_sets is not None:
        for inputs, outputs in case.data_sets:
            yield list(map(_array, inputs)), list(map(_array, outputs))
    elif case.model_dir is not None:
        for folder in sorted(Path(case.model_dir).glob("test_data_set_*")):
            yield (
                _stored(folder, "input", model.graph.input),
                _stored(folder, "output", model.graph.output),
            )
    else:
        constants = {tensor.name for tensor in model.graph.initializer}
        inputs = [_ramp(value) for value in model.graph.input if value.name not in constants]
        stem = _light_file(case).with_suffix("")
        files = [Path(f"{stem}_output_{k}.pb") for k in range(len(model.graph.output))]
        yield inputs, [numpy_helper.to_array(_tensor(file)) for file in files]


def _ramp(value: onnx.ValueInfoProto) -> np.ndarray:
    """The input that ONNX's runner gives to networks without weights."""
    shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
    count = int(np.prod(shape))
    return (np.arange(count).reshape(shape) / count).astype(np.float32)


def _stored(folder: Path, kind: str, values: Iterable[onnx.ValueInfoProto]) -> list[Any]:
    count = len(list(folder.glob(f"{kind}_*.pb")))
    files = [folder / f"{kind}_{k}.pb" for k in range(count)]
    return [_read(file, value) for file, value in zip(files, values)]


def _read(file: Path, value: onnx.ValueInfoProto) -> Any:
    if value.type.HasField(SEQUENCE):
        return _array(SequenceProto.FromString(file.read_bytes()))
    if value.type.HasField(OPTIONAL):
        return _array(OptionalProto.FromString(file.read_bytes()))
    return numpy_helper.to_array(_tensor(file))


def _tensor(file: Path) -> TensorProto:
    return TensorProto.FromString(file.read_bytes())


def _array(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, SequenceProto):
        return numpy_helper.to_list(value)
    if isinstance(value, OptionalProto):
        return numpy_helper.to_optional(value)
    if isinstance(value, list | tuple):
        return [_array(element) for element in value]
    return value if value is None else np.asarray(value)


def kind_of(model: ModelProto) -> str:
    """ "core", or what else the test is about: "training", "image", "string", "sequence"."""
    nodes = list(_nodes(model.graph))
    operators = {node.op_type for node in nodes}
    values = [*model.graph.input, *model.graph.output]
    kinds = {value.type.WhichOneof("value") for value in values}
    types = {value.type.tensor_type.elem_type for value in values}
    if any("training" in node.domain for node in nodes):
        return "training"
    if "ImageDecoder" in operators:
        return "image"
    if TensorProto.STRING in types or operators & STRING_OPS or _has_strings(nodes):
        return "string"
    if kinds & {SEQUENCE, OPTIONAL} or operators & SEQUENCE_OPS:
        return "sequence"
    return "core"


NARROW = frozenset({
    TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ, TensorProto.FLOAT8E8M0, TensorProto.FLOAT4E2M1, TensorProto.INT4,
    TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2,
})  # fmt: skip
OTHER_DOMAINS = frozenset({"ai.onnx.ml", "ai.onnx.preview"})
RANDOM_OPS = frozenset({
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
})  # fmt: skip


def group_of(model: ModelProto, name: str) -> str:
    """The group of a core test in the table: the first of these that it belongs to."""
    nodes = list(_nodes(model.graph))
    values = [*model.graph.input, *model.graph.output]
    types = {value.type.tensor_type.elem_type for value in values}
    if types & NARROW:
        return "8/4/2-bit types"
    random = {node.op_type for node in nodes} & RANDOM_OPS or "training_dropout" in name
    if random or {node.domain for node in nodes} & OTHER_DOMAINS:
        return "random, training, ml"
    if max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0) > 26:
        return "opset 27-28"
    return "bfloat16" if TensorProto.BFLOAT16 in types else "plain"


def operator_of(model: ModelProto, name: str) -> str:
    """The operator that a test is about; expanded function bodies count with their operator."""
    if "_expanded" not in name and len(model.graph.node) == 1:
        node = model.graph.node[0]
        return f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return ""


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _has_strings(nodes: Iterable[onnx.NodeProto]) -> bool:
    names = {"keys_strings", "values_strings", "classes_strings", "cats_strings", "pool_strings"}
    return any(a.name in names and a.strings for node in nodes for a in node.attribute)
