"""Prepared ONNX graph + symbolic shapes -> Relax: one function, one dataflow block.

The driver walks the nodes in order and asks, by domain and operator, our converter and then TVM's.
Nodes whose result is known before run time (shape arithmetic) emit nothing. What no converter can
do is collected and reported in one error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import tvm
from onnx import NodeProto
from tvm import relax

from tvmext.errors import ModelError, UnsupportedError, UnsupportedOp

from ..dims import Expr, names_of
from ..model import Model, Node, TensorSpec
from ..storage import STORED, stored
from . import checks, scalars, stock
from . import graph as graphs
from .builder import BodyError, Builder, Call, Converter, DeclinedError, Dims, Result
from .control import DIMS, Body
from .convert import CONVERTERS, MACHINE_LEARNING
from .convert.control import FLAG, NUMBER, End, Start
from .convert.narrow import check_operand
from .merge import OUTERMOST, merge, with_symbols
from .prepare import Prepared
from .sequences import MADE

if TYPE_CHECKING:
    from .symbolic import Shapes

HINT = "replace these nodes in the exporting script, or cut the model before them"


def operators() -> frozenset[str]:
    """Operators of the default domain that can be converted, by our converters or TVM's."""
    return frozenset(CONVERTERS) | stock.operators()


def import_graph(prepared: Prepared, shapes: Shapes, sizes: scalars.Scalars) -> Model:
    """The network as Relax; `sizes` are the inputs whose elements are sizes.

    Raises UnsupportedError that lists every node without a converter.
    """
    guards = scalars.other_guards(sizes, shapes.guards, prepared.name)
    builder = Builder(
        shapes,
        prepared.constants,
        prepared.versions,
        scalars.names(sizes),
        model=prepared.model,
    )
    inputs = [_input(builder, name) for name in prepared.inputs]
    outputs = [output.name for output in prepared.model.graph.output]
    with _function(builder, "main", inputs):
        with builder.bb.dataflow():
            scalars.bind(builder, sizes)
            _convert_all(builder, prepared.model.graph.node)
            values = [] if builder.unsupported else [builder.tensor(name) for name in outputs]
            results = [builder.bb.emit_output(value) for value in values]
        builder.bb.emit_func_output(results[0] if len(results) == 1 else relax.Tuple(results))
    if builder.unsupported:
        raise UnsupportedError(builder.unsupported, hint=HINT)
    return Model(
        mod=_with_weights(builder, inputs),
        params={name: array for name, (_, array) in builder.weights.items()},
        inputs=tuple(_spec(builder, name) for name in prepared.inputs),
        outputs=tuple(_spec(builder, name) for name in outputs),
        dims=dict(shapes.dims),
        guards=guards,
        nodes=builder.nodes,
        matched=builder.matched,
        source=prepared.name,
    )


def add_body(
    outer: Builder, body: Body, inputs: Sequence[str], end: End, start: Start | None = None
) -> tvm.ir.GlobalVar:
    """A function for a body, in the module of `outer`.

    Its parameters are the dims of the outside if there are any, then `inputs`; `end` makes what it
    returns of the body's outputs; `start` makes values of the parameters before. Raises BodyError
    if the body has unsupported nodes.
    """
    prepared, shapes = body.prepared, body.shapes
    builder = Builder(
        shapes, prepared.constants, prepared.versions, model=prepared.model, inside=True
    )
    params = [_dims_input(builder)] if body.dims else []
    make = {FLAG: _own, NUMBER: _own}
    params += [make.get(name, _input)(builder, name) for name in inputs]
    with _function(builder, OUTERMOST, params):
        with builder.bb.dataflow():
            checks.emit(builder, shapes.guards)
            if start is not None:
                start(builder)
            _list_unheard(builder, prepared.model.graph.node)
            if not builder.unsupported:
                _convert_all(builder, prepared.model.graph.node)
            results = [] if builder.unsupported else end(builder, body.output_names)
            results = [builder.bb.emit_output(result) for result in results]
        builder.bb.emit_func_output(relax.Tuple(results))
    if builder.unsupported:
        outer.unsupported += builder.unsupported
        raise BodyError
    return merge(outer.bb, builder.bb.get())


@contextmanager
def _function(builder: Builder, name: str, params: Sequence[relax.Var]) -> Iterator[None]:
    """Where a function is built; TVM would warn of the block that an error leaves open."""
    with builder.bb.function(name, params):
        try:
            yield
        except BaseException:
            builder.bb._end_block()
            raise


def _dims_input(builder: Builder) -> relax.Var:
    sizes = [builder.prims.prim(size) for size in builder.value(DIMS).shape or ()]
    return relax.Var("dims", relax.ShapeType(sizes))


def _own(builder: Builder, name: str) -> relax.Var:
    """A parameter that ONNX's body does not have."""
    dtype = "bool" if name == FLAG else "int64"
    builder.values[name] = relax.Var(builder.unique(name), relax.TensorType([], dtype))
    return builder.values[name]


def _input(builder: Builder, name: str) -> relax.Var:
    value = builder.value(name)
    var = relax.Var(
        builder.unique(name),
        relax.TensorType(builder.prims.shape(value.shape or ()), stored(value.dtype)),
    )
    builder.values[name] = var
    return var


def _spec(builder: Builder, name: str) -> TensorSpec:
    value = builder.value(name)
    return TensorSpec(name, value.dtype, value.shape or (), STORED.get(value.dtype, ""))


def _with_weights(builder: Builder, inputs: list[relax.Var]) -> tvm.IRModule:
    """The module with the weights as further parameters of main."""
    mod = builder.bb.get()
    main = mod["main"]
    params = [*inputs, *(var for var, _ in builder.weights.values())]
    whole = relax.Function(params, main.body, main.ret_ty, main.is_pure, main.attrs)
    mod["main"] = relax.analysis.remove_all_unused(whole).with_attr("num_input", len(inputs))
    return with_symbols(mod)


def _convert_all(builder: Builder, nodes: Iterable[NodeProto]) -> None:
    """Emit the nodes, and list those that no converter can do."""
    failed: set[str] = set()
    late = list(builder.shapes.late)
    for node in nodes:
        if _known(builder, node):
            continue
        call = Call(builder, node)
        if graphs.reads(node) & failed and any(_converters(call)):
            failed.update(node.output)  # what depends on a failure cannot be told
            continue
        try:
            late = checks.emit(builder, late)
            _store(call, _convert(call))
        except BodyError:
            failed.update(node.output)
        except DeclinedError as error:
            failed.update(node.output)
            builder.unsupported.append(
                UnsupportedOp(call.op, call.domain, call.version, graphs.label(node), str(error))
            )


def _known(builder: Builder, node: NodeProto) -> bool:
    """Whether every result is known before run time, so that the node computes nothing.

    What a size read from an input leads to is computed all the same, from that input: it may be
    needed as a tensor, and is dropped where it is not. Dims of a tensor are there once the tensor
    is. A sequence is nothing to compute.
    """
    if graphs.core_op(node) in MADE:
        return True
    computed = frozenset() if graphs.core_op(node) in ("Shape", "Size") else builder.scalars
    for name in node.output:
        data = builder.known(name) if name else np.array(())
        if data is None or any(names_of(x) & computed for x in data.flat if isinstance(x, Expr)):
            return False
    return True


def _converters(call: Call) -> tuple[Converter | None, Converter | None]:
    """Ours and TVM's."""
    ours = {"": CONVERTERS, "ai.onnx.ml": MACHINE_LEARNING}.get(call.domain, {}).get(call.op)
    theirs = stock.convert if not call.domain and call.op in stock.operators() else None
    return ours, theirs


def _list_unheard(builder: Builder, nodes: Iterable[NodeProto]) -> None:
    """List the nodes of a body without a converter: they leave shapes around them unknown."""
    for call in (Call(builder, node) for node in nodes):
        if not any(_converters(call)) and not _known(builder, call.node):
            builder.unsupported.append(
                UnsupportedOp(call.op, call.domain, call.version, graphs.label(call.node), "")
            )


def _convert(call: Call) -> list[relax.Expr]:
    """By our converter; by TVM's where we have none, or ours leaves it the rest."""
    check_operand(call)
    ours, theirs = _converters(call)
    if _is_nothing(call) and (ours or theirs):
        return _checked(call, _nothing)
    for convert in (ours, theirs):
        if convert is None:
            continue
        try:
            return _checked(call, convert)
        except DeclinedError:
            if convert is theirs or theirs is None or call.op not in stock.CONTINUES:
                raise
    raise DeclinedError("")


def _is_nothing(call: Call) -> bool:
    """Whether no result has an element: kernels would divide by their sizes of 0."""
    values = [call.builder.value(name) for name in call.node.output if name]
    shapes = [v.shape for v in values if v.dtype not in ("", "str") and v.shape is not None]
    found = [shape for shape in shapes if 0 in shape and call.builder.has_defined(shape)]
    return bool(values) and len(found) == len(values)


def _nothing(call: Call) -> Result:
    return [
        relax.op.zeros(call.shape_expr(call.out_shape(index)), stored(call.out_dtype(index)))
        if name
        else relax.Tuple([])
        for index, name in enumerate(call.node.output)
    ]


def _checked(call: Call, convert: Converter) -> list[relax.Expr]:
    """The results, bound to variables; an error inside TVM becomes a refusal."""
    try:
        return _bound(call, convert(call))
    except (DeclinedError, ModelError):
        raise
    except Exception as error:  # whatever TVM's type inference or converter raises for this node
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
        text = lines[-1] if lines else ""
        raise DeclinedError(f"{type(error).__name__}: {text}") from error


def _bound(call: Call, result: Result) -> list[relax.Expr]:
    if isinstance(result, list | tuple):
        parts = list(result)
    else:
        whole = result if isinstance(result, relax.Tuple) else call.emit(result)
        if isinstance(whole, relax.Tuple):
            parts = list(whole.fields)
        elif isinstance(whole.ty, relax.TupleType):
            parts = [relax.TupleGetItem(whole, i) for i in range(len(whole.ty.fields))]
        else:
            parts = [whole]
    wanted = [index for index in range(len(call.node.output)) if call.wants(index)]
    if wanted and wanted[-1] >= len(parts):
        raise DeclinedError(f"only its first {len(parts)} output(s) are supported")
    return [
        _pinned(call, index, part if isinstance(part, relax.Var) else call.emit(part))
        if call.wants(index)
        else part
        for index, part in enumerate(parts[: len(call.node.output)])
    ]


def _pinned(call: Call, index: int, var: relax.Var) -> relax.Var:
    """The value with the type that shape inference found; declines if Relax found another.

    Here a size that only the run knows gets its name.
    """
    shape, dtype = call.builder.value(call.node.output[index]).shape, stored(call.out_dtype(index))
    found = var.ty
    if shape is None:
        raise DeclinedError("the number of dims of its result is not known")
    if not isinstance(found, relax.TensorType) or str(found.dtype) != dtype:
        raise DeclinedError(f"its result is {found}, not a tensor of {dtype}")
    known = isinstance(found.shape, relax.ShapeExpr) and call.builder.has_defined(shape)
    if known and _same(call, list(found.shape.values), shape):
        return var
    call.builder.define(shape)
    return call.match(var, relax.TensorType(call.shape_expr(shape), dtype))


def _same(call: Call, found: Sequence[tvm.tirx.PrimExpr], shape: Dims) -> bool:
    """Whether the dims are provably equal; declines if they are provably different."""
    if len(found) != len(shape):
        raise DeclinedError(f"its result has {len(found)} dims, not {len(shape)}")
    equal = True
    for have, want in zip(found, shape):
        if isinstance(want, int) and isinstance(have, tvm.tirx.IntImm):
            if want != have.value:
                raise DeclinedError(f"its result has dims {found}, not {list(shape)}")
        elif not call.builder.proves_equal(have, want):
            equal = False
    return equal


def _store(call: Call, results: list[relax.Expr]) -> None:
    node = Node(graphs.label(call.node), call.op)
    for name, result in zip(call.node.output, results):
        if name:
            call.builder.values[name] = result
        if isinstance(result, relax.Var):  # an input or another node's result if this does nothing
            call.builder.nodes.setdefault(result.name, node)
