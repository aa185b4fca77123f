"""Masks that only the run knows: read in vectors; steps of keys that they hide are skipped.

    scores + mask, or where(condition, scores, -inf): key j is hidden from row i at HIDDEN or below
    a step is left out if all its keys are hidden from all rows of the tile

What a hidden key weighs beside one that is seen is exactly 0 (kernel/attend.py), so results are
those of all steps. The tile of a row that sees nothing at all takes every step: its softmax is one
of the masks then. Warps look at the mask before the block begins, a step each, and only until they
find a key that is seen; for each step, or group of steps where there are many, a bit in shared
memory says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm_ffi
from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.ir import Call, Expr, TensorLoad, Var
from tvm.tirx import Stmt

from tvmext.arch import dtype_bits
from tvmext.arch.cuda import WARP

from ..kernel.analysis import collect, substitute, variables
from ..kernel.attend import HIDDEN, Attention
from ..kernel.contraction import size
from ..kernel.emit import (
    UNROLLED,
    Size,
    Values,
    allocate,
    block,
    ceildiv,
    index,
    known,
    least,
    loop,
    most,
)
from . import ptx
from .attention_choice import MASK_BYTES, MASK_STEPS
from .launch import axes_at, split, sync, when
from .operand import whole_runs
from .vectors import is_bool

AT_ONCE = 8
"""Reads of a thread that are under way together."""


class Mask:
    """`value` over the axes of the scores, of up to `side` neighbouring keys at a time.

    Loads that go along the keys are vectors where these are whole, those of truth values too.
    """

    def __init__(self, found: Attention, value: Expr, side: int) -> None:
        self.found, self.value = found, value
        axes = (*found.batch, *found.rows, found.keys)
        every = collect(value, TensorLoad)
        self.loads = [load for load in every if found.keys.var in variables(load)]
        # What is read under a condition only may not be there else.
        self.side = 1 if _choices(value) else side
        while self.side > 1 and not all(
            self.side * _bytes(load) <= ptx.CHUNK_BYTES
            and whole_runs(load, found.keys, self.side, axes)
            for load in self.loads
        ):
            self.side //= 2

    def registers(self, count: int) -> list[Var]:
        """Memory of a thread for `count` vectors of each load."""
        return [
            allocate([count * self.side], _dtype(load), f"mask_{i}", "local")
            for i, load in enumerate(self.loads)
        ]

    def read(self, registers: Sequence[Var], number: Size, at: Values) -> Stmt | None:
        """Vector `number` of each load, from the point `at` on."""
        if self.side == 1:
            return None
        return block(
            *(
                _load(
                    ptx.address(register, number * self.side),
                    tirx.address_of(substitute(load, dict(at))),
                    self.side * _bytes(load),
                )
                for register, load in zip(registers, self.loads)
            )
        )

    def at(self, registers: Sequence[Var], number: Size, at: Values, v: Size) -> Expr:
        """The value `v` keys after the point `at`, at which vector `number` was read."""
        keys = self.found.keys.var
        here = {**at, keys: at[keys] + v}
        if self.side == 1:
            return substitute(self.value, here)

        def held(load: TensorLoad) -> Expr:
            for register, other in zip(registers, self.loads):
                if load.same_as(other):
                    word = register[index(number) * self.side + v]
                    return tirx.NE(word, tirx.const(0, "uint8")) if is_bool(load) else word
            return load

        return substitute(tvm_ffi.structural_map(self.value, (TensorLoad, held)), here)


class Seen:
    """Which of a block's steps of `width` keys are seen: `bits`, `MASK_BYTES` of shared memory."""

    def __init__(
        self, mask: Mask, rows: int, width: int, steps: Size, threads: int, bits: Expr
    ) -> None:
        self.mask, self.width, self.threads, self.bits = mask, width, threads, bits
        self.found = mask.found
        self.every = known(size(self.found.rows))
        self.keys = known(self.found.keys.extent)
        told_apart = {axis.var for axis in self.found.rows} & variables(mask.value)
        self.rows = rows if told_apart else 1
        self.infinite = _infinite(mask.value)
        self.group = most(ceildiv(steps, MASK_STEPS), 1)
        self.registers = mask.registers(AT_ONCE)
        self.seen = allocate([1], "int32", "seen", "local")
        self.turn = allocate([1], "int64", "turn", "local")

    @property
    def buffers(self) -> tuple[Var, ...]:
        return *self.registers, self.seen, self.turn

    def look(self, at: Values, first: Expr, start: Expr, steps: Size, thread: Expr) -> Stmt:
        """Set the bits of `steps` steps from `start` on, for rows from `first` on."""
        warps, warp, lane = self.threads // WARP, thread // WARP, thread % WARP
        height = least(self.rows, index(self.every) - first)
        wide = known(index(self.group) * self.width)

        def row(r: Expr) -> Stmt:
            own = r * warps + warp
            look = self._look(at, first + own, 1, index(0), self.keys, lane)
            blind = tirx.And(self.seen[0] < 1, lane < 1)
            return when(own < height, block(look, when(blind, _set(self.bits, index(MASK_STEPS)))))

        def some(g: Expr) -> Stmt:
            own = g * warps + warp
            look = self._look(
                at, first, height, (start + own * self.group) * self.width, wide, lane
            )
            seen = tirx.And(self.seen[0] > 0, lane < 1)
            return when(
                own * self.group < index(steps), block(look, when(seen, _set(self.bits, own)))
            )

        groups = _quotient(index(steps) + (index(self.group) - 1), self.group)
        return block(
            loop(
                -(-(MASK_BYTES // 4) // self.threads),
                lambda i: _clear(self.bits, thread + i * self.threads),
                name="w",
            ),
            sync(),
            # A row that nothing is left of has a sum of zero, whatever steps are taken.
            None if self.infinite else loop(-(-self.rows // warps), row, name="r"),
            None if self.infinite else sync(),
            when(
                _blind(self.bits) < 1,
                loop(_quotient(groups + (warps - 1), warps), some, name="g"),
            ),
            sync(),
        )

    def next(self, step: Expr, steps: Size) -> Expr:
        """The first step from `step` on that is seen; `steps`, if there is none."""
        return _next(self.bits, step, index(steps), index(self.group))

    def count(self, steps: Size) -> Expr:
        """How many steps are seen."""
        return _count(self.bits, index(steps), index(self.group))

    def _look(self, at: Values, row: Expr, rows: Size, key: Expr, wide: Size, lane: Expr) -> Stmt:
        """`seen` is not 0 if a key is seen: of a warp's `rows` rows from `row` on, by `wide` keys.

        The lanes take neighbouring vectors, several of them at once.
        """
        mask, zero = self.mask, index(0)
        per_row = ceildiv(wide, mask.side)
        count = known(index(rows) * per_row)
        turns = _quotient(index(count) + (WARP * AT_ONCE - 1), WARP * AT_ONCE)

        def place(u: Expr) -> tuple[Expr, Values]:
            flat = (self.turn[zero] * AT_ONCE + u) * WARP + lane
            down, along = split(flat, per_row)
            if rows == 1:
                down, along = index(0), flat
            j = key + along * mask.side
            inside = tirx.And(flat < index(count), j < index(self.keys))
            here = {**at, **axes_at(self.found.rows, row + down), self.found.keys.var: j}
            return inside, here

        def read(u: Expr) -> Stmt:
            inside, here = place(u)
            code = mask.read(self.registers, u, here)
            return when(inside, code) if code is not None else tirx.Evaluate(zero)

        def test(u: Expr) -> Stmt:
            inside, here = place(u)

            def one(v: Expr) -> Stmt:
                hidden = mask.at(self.registers, u, here, v) <= HIDDEN
                some = tirx.Select(hidden, self.seen[zero], tirx.const(1, "int32"))
                return tirx.BufferStore(self.seen, some, [zero])

            return when(inside, loop(mask.side, one, UNROLLED, "v"))

        turn = block(
            loop(AT_ONCE, read, UNROLLED, "u"),
            loop(AT_ONCE, test, UNROLLED, "u"),
            tirx.BufferStore(self.seen, _any(self.seen[zero]), [zero]),
            tirx.BufferStore(self.turn, self.turn[zero] + 1, [zero]),
        )
        return block(
            tirx.BufferStore(self.seen, tirx.const(0, "int32"), [zero]),
            tirx.BufferStore(self.turn, zero, [zero]),
            tirx.While(tirx.And(self.turn[zero] < turns, self.seen[zero] < 1), turn),
        )


def _quotient(a: Expr, b: Size) -> Size:
    """a // b of numbers that are not negative; an int where it is known."""
    return known(split(a, b)[0])


def _choices(value: Expr) -> bool:
    """Whether `value` reads something under a condition only."""
    found: list[Expr] = []
    for chosen in collect(value, tirx.Select):
        found += [chosen.true_value, chosen.false_value]
    for call in collect(value, Call):
        if getattr(call.op, "name", "") == "prim.if_then_else":
            found += list(call.args[1:])
    return any(collect(one, TensorLoad) for one in found)


def _infinite(value: Expr) -> bool:
    """Whether what a choice by the mask hides is minus infinity."""
    if not isinstance(value, tirx.Select):
        return False
    ways = (value.true_value, value.false_value)
    hides = [one.value for one in ways if isinstance(one, tirx.FloatImm) and one.value <= HIDDEN]
    plain = all(isinstance(one, tirx.FloatImm) for one in ways)
    return plain and all(one == float("-inf") for one in hides)


def _dtype(load: TensorLoad) -> str:
    """What a load's elements are in registers: truth values are bytes."""
    return "uint8" if is_bool(load) else str(load.source.ty.dtype)


def _bytes(load: TensorLoad) -> int:
    return dtype_bits(_dtype(load)) // 8


# ---------------------------------------------------------------- device functions

_WORDS = {2: "unsigned short", 4: "unsigned", 8: "uint2", 16: "uint4"}


def _load(target: Expr, source: Expr, size: int) -> Stmt:
    """`size` bytes as one access, of whatever type."""
    name, word = f"tvmext_load_{size}", _WORDS[size]
    line = f"*reinterpret_cast<{word}*>(d) = *reinterpret_cast<const {word}*>(s);"
    return ptx.call(name, ptx.function(name, "void* d, const void* s", line), target, source)


def _clear(bits: Expr, word: Expr) -> Stmt:
    name = "tvmext_bits_clear"
    line = f"if (word < {MASK_BYTES // 4}) bits[word] = 0;"
    return ptx.call(name, ptx.function(name, "unsigned* bits, long long word", line), bits, word)


def _set(bits: Expr, number: Expr) -> Stmt:
    name = "tvmext_bits_set"
    line = "atomicOr(bits + number / 32, 1u << number % 32);"
    code = ptx.function(name, "unsigned* bits, long long number", line)
    return ptx.call(name, code, bits, number)


def _value(kind: str, dtype: str, name: str, parameters: str, body: str, *arguments: Expr) -> Expr:
    """The result of a device function."""
    code = f"\n__forceinline__ __device__ {kind} {name}({parameters}) {{{body}}}\n"
    return cuda_func_call(name, *arguments, source_code=code, return_type=dtype)


def _any(flag: Expr) -> Expr:
    """Whether a flag of the warp is not 0."""
    body = " return __any_sync(0xffffffffu, flag); "
    return _value("int", "int32", "tvmext_any", "int flag", body, flag)


def _blind(bits: Expr) -> Expr:
    """Whether a row sees nothing."""
    body = f" return bits[{MASK_STEPS // 32}] != 0; "
    return _value("int", "int32", "tvmext_blind", "const unsigned* bits", body, bits)


def _next(bits: Expr, step: Expr, steps: Expr, group: Expr) -> Expr:
    body = f"""
  if (step >= steps || bits[{MASK_STEPS // 32}]) return step < steps ? step : steps;
  int bit = int(step / group), end = int((steps + group - 1) / group);
  unsigned word = bits[bit / 32] >> bit % 32;
  if (word & 1) return step;
  if (word) return (bit + __ffs(word) - 1) * group;
  for (bit = (bit / 32 + 1) * 32; bit < end; bit += 32)
    if (bits[bit / 32]) return (bit + __ffs(bits[bit / 32]) - 1) * group;
  return steps;
"""
    given = "const unsigned* bits, long long step, long long steps, long long group"
    return _value("long long", "int64", "tvmext_next_step", given, body, bits, step, steps, group)


def _count(bits: Expr, steps: Expr, group: Expr) -> Expr:
    body = f"""
  if (steps <= 0 || bits[{MASK_STEPS // 32}]) return steps;
  int end = int((steps + group - 1) / group);
  long long count = 0;
  for (int bit = 0; bit < end; bit += 32) count += __popc(bits[bit / 32]) * group;
  bool last = bits[(end - 1) / 32] >> (end - 1) % 32 & 1;
  return last ? count - (end * group - steps) : count;
"""
    given = "const unsigned* bits, long long steps, long long group"
    return _value("long long", "int64", "tvmext_count_steps", given, body, bits, steps, group)
