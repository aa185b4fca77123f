"""The first value inside a network that differs from the reference.

The values of the main graph, in topological order, become outputs of variants of the model, which
are compiled and run beside the reference. A round looks at `_AT_ONCE` values spread over what is in
question and keeps the part up to the first that differs, so memory holds few of them at a time and
a network of n values takes about log(n) / log(_AT_ONCE) rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto

from tvmext.errors import TvmextError
from tvmext.frontends.onnx.graph import label, reads
from tvmext.runtime import CompiledModel

from .compare import Comparison, Tolerances, compare
from .reference import Arrays, make_reference
from .report import Divergence
from .source import OnnxSource

_AT_ONCE = 32


Compiler = Callable[[ModelProto, Mapping[str, Any]], CompiledModel]
"""compiler(model, dims) compiles as the model in question was compiled."""


class Search:
    """Looks for the first value that differs, on one choice of inputs."""

    def __init__(
        self,
        source: OnnxSource,
        compiler: Compiler,
        reference: str,
        inputs: Arrays,
        dims: Mapping[str, Any],
        tolerances: Tolerances,
    ) -> None:
        self._source = source
        self._compiler = compiler
        self._reference = reference
        self._inputs = inputs
        self._dims = dims
        self._tolerances = tolerances
        self._compared = 0

    def first_divergence(self, output: str) -> Divergence:
        """The first value, in topological order, that differs among those `output` depends on.

        A value that is an output is not fused into the next operator, so a difference that comes
        from fusion can vanish when it is looked at; the result then says so.
        """
        makers = _ancestors(self._source.graph, output)
        left = list(makers)
        found: Comparison | None = None
        while left:
            probes = _spread(left)
            failed = next((c for c in self._compare(probes) if not c.passed), None)
            if failed is None:
                break
            found = failed
            at = probes.index(failed.name)
            start = left.index(probes[at - 1]) + 1 if at else 0
            left = left[start : left.index(failed.name)]
        if found is None:
            return Divergence(
                self._compared,
                reason="no value differs once it is an output of its own: the difference comes "
                "from fusing operators",
            )
        node = makers[found.name]
        return Divergence(self._compared, found.name, label(node), node.op_type, found)

    def _compare(self, names: Sequence[str]) -> list[Comparison]:
        """Comparisons of the values that both sides can compute, in the order of `names`."""
        variant = self._source.with_outputs(names)
        try:
            compiled = self._compiler(variant, self._dims)
            reference = make_reference(variant.SerializeToString(), self._reference)
            got, expected = compiled.run(self._inputs), reference.run(self._inputs)
        except TvmextError:
            if len(names) == 1:
                return []  # a type that cannot be an output, such as a sequence
            half = len(names) // 2
            return self._compare(names[:half]) + self._compare(names[half:])
        self._compared += len(names)
        return [
            compare(name, got[name], expected[name], self._tolerances(name, expected[name]))
            for name in names
        ]


def _ancestors(graph: GraphProto, output: str) -> dict[str, NodeProto]:
    """{value: the node that makes it} of all that `output` depends on, in topological order."""
    needed = {output}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed |= reads(node)
    return {name: node for node in graph.node for name in node.output if name in needed}


def _spread(values: Sequence[str]) -> list[str]:
    """At most `_AT_ONCE` of the values, evenly spaced, the last one included."""
    count = min(_AT_ONCE, len(values))
    return [values[(i + 1) * len(values) // count - 1] for i in range(count)]
