"""Recurrent networks: a block of threads has a sequence, its threads the units of the cell.

for sequence, direction:                                 one block
    for step:                                            the state is in shared memory
        for phase:  units of the state, a thread each    then all threads wait
        for unit:   y[step] = h = next                   then all threads wait

The kernel (frontends/recurrence.py) says what a unit is; its loops over units become threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import For, Stmt

from tvmext.arch import CudaArch, dtype_bits
from tvmext.arch.cuda import STATIC_SHARED, WARP
from tvmext.frontends.recurrence import FORM

from ..kernel.analysis import constant, substitute
from ..kernel.axes import product
from ..kernel.emit import allocate, block, ceildiv, index, known, loop
from ..rule import Declined, Kernel, Scheduled
from .launch import Block, launch, sync, when

MOST_THREADS = 512


@dataclass(frozen=True)
class Cell:
    """The units of a state, and the loops over sequences, one for each direction."""

    units: int
    sequences: tuple[For, ...] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Decision:
    """Threads of a block, which share the units of one sequence."""

    threads: int


class Recurrence:
    """The kernel of all steps of a recurrent network."""

    name = "recurrence"

    def match(self, kernel: Kernel) -> Cell | Declined:
        if FORM not in kernel.func.attrs:
            return Declined("not a recurrent network")
        sequences = tuple(_parts(kernel.func.body))
        states = [s.buffer for s in _parts(sequences[0].body) if isinstance(s, tirx.AllocBuffer)]
        units = constant(states[0].shape[0])
        if units is None:
            return Declined("the units are not known")
        if sum(units * dtype_bits(str(s.ty.dtype)) // 8 for s in states) > STATIC_SHARED:
            return Declined("the state does not fit in shared memory")
        return Cell(units, sequences)

    def choose(self, workload: Cell, arch: CudaArch) -> Decision:
        return Decision(min(MOST_THREADS, -(-workload.units // WARP) * WARP))

    def apply(
        self, kernel: Kernel, workload: Cell, decision: Decision, arch: CudaArch
    ) -> Scheduled:
        func = kernel.func
        parts = [_launched(one, workload.units, decision.threads) for one in workload.sequences]
        return Scheduled(tirx.PrimFunc(func.params, block(*parts), func.ret_type, func.attrs))


def _launched(sequences: For, units: int, threads: int) -> Stmt:
    count = known(sequences.extent)

    def shared_out(one: For, x: Expr, number: Expr) -> Stmt:
        def unit(o: Expr) -> Stmt:
            j = o * threads + x
            # Of an empty grid there is one block.
            inside = tirx.And(number < index(count), j < index(units))
            return when(inside, substitute(one.body, {one.loop_var: j}))

        return block(loop(ceildiv(units, threads), unit, name="o"), sync())

    def threaded(number: Expr, x: Expr, _y: Expr) -> Stmt:
        def spread(stmt: Stmt) -> Stmt:
            if not isinstance(stmt, For):
                return stmt
            if _is_steps(stmt):
                inner = block(*map(spread, _parts(stmt.body)))
                return For(stmt.loop_var, stmt.min, stmt.extent, tirx.ForKind.SERIAL, inner)
            return shared_out(stmt, x, number)

        stmt = substitute(sequences.body, {sequences.loop_var: number})
        return block(*map(spread, _parts(_moved(stmt))))

    return launch(count, Block(threads), threaded)


def _parts(stmt: Stmt) -> list[Stmt]:
    return list(stmt.seq) if isinstance(stmt, tirx.SeqStmt) else [stmt]


def _is_steps(stmt: For) -> bool:
    """Whether a loop is the one that has an order: it holds loops over units and nothing else."""
    return all(isinstance(part, For) for part in _parts(stmt.body))


def _moved(stmt: Stmt) -> Stmt:
    """States go to shared memory, a unit's own sums to registers."""
    states = {part.buffer for part in _parts(stmt) if isinstance(part, tirx.AllocBuffer)}
    own: list[Var] = []
    tvm_ffi.structural_walk(stmt, (tirx.AllocBuffer, lambda made: own.append(made.buffer)))
    homes = {
        b: allocate(
            [product(b.shape)], str(b.ty.dtype), b.name, "shared" if b in states else "local"
        )
        for b in own
    }
    return substitute(stmt, homes)
