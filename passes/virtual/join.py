"""Loaders become the first blocks of the kernels that read them, where that is best for all.

    v = call_tir(loader, (x,))                    y = call_tir(kernel', (x, w))
    y = call_tir(kernel, (v, w))      becomes
                                      kernel' = { V[i] = X[map(i)];  the blocks of kernel over V }

The schedule rule of the kernel reads the operand through the map in place, or lets its pack or
stage step do the move: no tensor is written for it. FuseOps does this where a consumer is
elementwise; here any kernel counts whose rule takes it. Which tensors are written is a matter of
the opportunity graph (opportunity.py, strategy.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from math import inf
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.frontends.dims import Dim

from ..names import unnumbered
from .check import KEPT, PRICED, moves
from .emit import APART, OPERATORS, VIEW
from .general import kernel_of
from .joining import BLOCKED, Joined, Joiner, Operand, Reading, bytes_of, is_tensor
from .opportunity import Graph, Node
from .prims import Prims, UnmappedError
from .ranges import Ranges, ranges
from .strategy import Plan, Problem, decide, virtual_in
from .tensor import VirtualTensor, physical
from .tir_map import map_of

__all__ = ["JoinLoaders", "Reading"]


@dataclass(frozen=True)
class Decision:
    """What became of a tensor that `operators` made: why it is written, "" if it is virtual."""

    operators: tuple[str, ...]
    written: str


@tvm.transform.module_pass(opt_level=0, name="JoinLoaders")
class JoinLoaders:
    """Join kernels that only move data with their readers: for latency, or for memory.

    `problems` are the components that were decided, with their plans, and `decisions` what became
    of each tensor in them, in the order in which they would be written. `dims` are the dims of the
    model that are free: prices count over their ranges.
    """

    def __init__(
        self, reading: Reading, memory: bool = False, dims: Mapping[str, Dim] | None = None
    ) -> None:
        self.reading = reading
        self.memory = memory
        self.ranges = ranges(dims or {})
        self.problems: list[tuple[Problem, Plan]] = []
        self.decisions: list[Decision] = []

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        rewriter = _Rewriter(mod)
        self.problems, self.decisions = [], []
        for var, func in mod.functions_items():
            if not isinstance(func, relax.Function):
                continue
            loaders = Loaders(mod, func, self.reading, self.ranges)
            weights = self.ranges.weights
            decided = decide(loaders.graph, loaders.price, self.memory, weights)
            rewriter.joined = loaders.joined(virtual_in(decided))
            rewriter.builder_.update_func(var, rewriter.visit_expr(func))
            written = loaders.written(decided)
            for place, reason in written.items():
                callee = loaders.callee(place)
                rewriter.builder_.update_func(callee, mod[callee].with_attr(KEPT, reason))
            self.problems += decided
            self.decisions += [
                Decision(loaders.operators(place), written.get(place, ""))
                for place in loaders.graph.movable
            ]
        return relax.transform.DeadCodeElimination()(rewriter.builder_.get())


class Loaders:
    """The kernels of a function: as an opportunity graph, and with loaders, priced."""

    def __init__(
        self, mod: tvm.IRModule, func: relax.Function, reading: Reading, over: Ranges
    ) -> None:
        self.mod = mod
        self.prims = Prims()
        self.usual = over.usual
        self.joiner = Joiner(mod, reading, self.prims, over.sizes)
        self._moving: dict[tvm.ir.GlobalVar, bool] = {}
        self.fixed: dict[int, str] = {}
        self.why: dict[tuple[int, frozenset[int]], str] = {}
        self.calls: dict[relax.Var, relax.Call] = {}
        self.lasting = set(reads(func.body.body))
        for block in func.body.blocks:
            for binding in block.bindings:
                self._note(binding.var, binding.value)
        kernels = [var for var in self.calls if not self.is_view(var)]
        self.places = {var: place for place, var in enumerate(kernels)}
        self.vars = tuple(kernels)
        self.graph = self._graph()

    def _note(self, var: relax.Var, value: relax.Expr) -> None:
        """Remembers calls; what is read by anything else is there to the end."""
        if not (isinstance(value, relax.Call) and value.op == _CALL_TIR):
            self.lasting |= set(reads(value))
            return
        self.calls[var] = value
        if not isinstance(var, relax.DataflowVar):
            self.lasting.add(var)

    def _graph(self) -> Graph:
        lasting = {self._root(var) for var in self.lasting}
        read = {var: [self._root(arg) for arg in reads(self.calls[var])] for var in self.vars}
        used = {source for sources in read.values() for source in sources}
        return Graph(
            tuple(
                Node(
                    tuple(self.places[source] for source in read[var] if source in self.places),
                    bytes_of(var.ty, self.prims, self.usual),
                    var in used - lasting and self._movable(self.places[var]),
                    var in lasting,
                )
                for var in self.vars
            )
        )

    def price(self, place: int, taken: frozenset[int]) -> Any:
        """The cycles of a kernel that reads `taken` through their maps; see `strategy.Price`."""
        call = self.calls[self.vars[place]]
        before, alone = self.joiner.read(call)
        if not taken:
            return alone if before else 0.0
        name = self._name(place)
        if not before:
            movable = self.graph.nodes[place].movable
            blocks = "its blocks" if movable else f"the blocks of '{name}'"
            self.why[place, taken] = f"no schedule rule reads {blocks}"
            return inf
        try:
            joined, _ = self._join(place, taken)
        except UnmappedError as reason:
            self.why[place, taken] = str(reason)
            return inf
        if joined.rule != before and (before, joined.rule) not in BLOCKED:
            self.why[place, taken] = f"rule '{before}' does not take it, '{joined.rule}' would"
            return inf
        return joined.cycles

    def joined(self, virtual: frozenset[int]) -> dict[relax.Var, tuple[Joined, list[relax.Expr]]]:
        """The kernels that read virtual tensors, each with the tensors that it is called with."""
        return {
            self.vars[place]: self._join(place, taken)
            for place in range(len(self.vars))
            if place not in virtual and (taken := self.graph.taken(place, virtual))
        }

    def written(self, decided: Sequence[tuple[Problem, Plan]]) -> dict[int, str]:
        """The tensors that are written, and why: what would be if that one were virtual too."""
        return self.fixed | {
            place: self._reason(problem, plan.virtual, place)
            for problem, plan in decided
            for place in sorted(problem.component - plan.virtual)
        }

    def operators(self, place: int) -> tuple[str, ...]:
        """The movement operators that a kernel stands for."""
        attrs = self.mod[self.callee(place)].attrs
        return tuple(str(attrs.get(OPERATORS, "loader")).split(","))

    def callee(self, place: int) -> tvm.ir.GlobalVar:
        return self.calls[self.vars[place]].args[0]

    def _reason(self, problem: Problem, virtual: frozenset[int], place: int) -> str:
        also = virtual | {place}
        readers = self.graph.final_readers(place, virtual)
        for reader in readers:
            if problem.kernel(reader, also) == inf:
                return self.why[reader, self.graph.taken(reader, also)]
        alone = problem.kernel(place, virtual)
        rule, _ = self.joiner.read(self.calls[self.vars[place]])
        if not rule:
            return "no schedule rule reads its blocks"
        if self.graph.peak(problem.decided | also) > problem.limit:
            return "priced: what it is made of would have to be kept, which takes more memory"
        if problem.much_dearer(also):
            return "priced: at some sizes that is much faster"
        instead = problem.cycles(also) - problem.cycles(virtual) + alone
        names = ", ".join(unnumbered(self._name(reader)) for reader in readers)
        return f"priced: {alone:.0f} cycles alone, {instead:.0f} in {names}"

    def _join(self, place: int, virtual: Set[int]) -> tuple[Joined, list[relax.Expr]]:
        """A kernel with loaders for the virtual tensors that it reads; and what it is called with.

        Raises UnmappedError if the map of one of them is not known.
        """
        call = self.calls[self.vars[place]]
        sources: dict[relax.Expr, str] = {}
        operands: dict[relax.Var, Operand] = {}
        for arg in dict.fromkeys(filter(is_tensor, call.args[1].fields)):
            root = self._root(arg)
            if self.places.get(root) in virtual:
                tensor = self._tensor(arg, virtual, sources)
                operators = self.operators(self.places[root])
                operands[arg] = Operand(tensor, str(arg.ty.dtype), operators)
        return self.joiner.join(call, operands, list(sources))

    def _tensor(
        self, expr: relax.Expr, virtual: Set[int], sources: dict[relax.Expr, str]
    ) -> VirtualTensor:
        """What is read as `expr`, over tensors in memory, in the shapes their kernels gave them."""
        if expr in self.calls and (self.is_view(expr) or self.places[expr] in virtual):
            func, tensors, sizes = kernel_of(self.calls[expr], self.mod)
            inputs = [self._tensor(arg, virtual, sources) for arg in tensors]
            own = [self.prims.size(size) for size in sizes]
            (tensor,) = map_of(func, inputs, own, [self.prims.shape(expr.ty)])
            return tensor
        name = sources.setdefault(expr, f"#{len(sources)}")
        return physical(name, self.prims.shape(expr.ty))

    def is_view(self, var: relax.Var) -> bool:
        return bool(self._func(var).attrs.get(VIEW, 0))

    def _root(self, expr: relax.Expr) -> relax.Expr:
        """What a view is a view of in the end."""
        while expr in self.calls and self.is_view(expr):
            expr = self.calls[expr].args[1].fields[0]
        return expr

    def _movable(self, place: int) -> bool:
        """Whether a kernel only moves data, from few enough places that others may do it."""
        callee = self.callee(place)
        if callee not in self._moving:
            self._moving[callee] = moves(self.mod[callee])
        apart = self._moving[callee] and bool(self.mod[callee].attrs.get(APART, 0))
        if apart:
            self.fixed[place] = f"{PRICED}: its elements are in too many places"
        return self._moving[callee] and not apart

    def _func(self, var: relax.Var) -> tirx.PrimFunc:
        return self.mod[self.calls[var].args[0]]

    def _name(self, place: int) -> str:
        return str(self.callee(place).name_hint)


def reads(value: Any) -> list[relax.Var]:
    """The variables that an expression mentions, in order."""
    found: list[relax.Var] = []
    relax.analysis.post_order_visit(
        value, lambda e: found.append(e) if isinstance(e, relax.Var) else None
    )
    return found


_CALL_TIR = tvm.ir.Op.get("relax.call_tir")


@mutator
class _Rewriter(PyExprMutator):
    """Calls the joined kernels; what they took in is dead."""

    joined: Mapping[relax.Var, tuple[Joined, list[relax.Expr]]]

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.functions: dict[Joined, tvm.ir.GlobalVar] = {}

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if binding.var not in self.joined:
            super().visit_var_binding_(binding)
            return
        joined, sources = self.joined[binding.var]
        if joined not in self.functions:
            name = binding.value.args[0].name_hint
            self.functions[joined] = self.builder_.add_func(joined.func, name)
        args = [
            self.visit_expr(sources[arg]) if isinstance(arg, int) else arg for arg in joined.args
        ]
        call = joined.call
        callee = self.functions[joined]
        made = relax.Call(
            call.op, [callee, relax.Tuple(args), *call.args[2:]], call.attrs, call.ty_args
        )
        self.set_var_remap(binding.var, self._emit(binding.var, made))

    def _emit(self, var: relax.Var, call: relax.Call) -> relax.Var:
        if isinstance(var, relax.DataflowVar):
            return self.builder_.emit(call, var.name)
        if self.builder_.current_block_is_dataflow():
            return self.builder_.emit_output(call, var.name)
        return self.builder_.emit(call, var.name)
