"""Instructions of sm_90a (PTX ISA 8.5): barriers, tensor copies, products of warpgroups.

A barrier counts arrivals and bytes; its phase ends when all that it expects have come. Copies and
products run on their own ("async proxy"): what ordinary instructions wrote to shared memory they
see after `fence_proxy`, and what they did is seen after the wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.tirx import Stmt

from .ptx import call, function

SHARED = "(unsigned)__cvta_generic_to_shared"
_SWIZZLES = {128: 1, 64: 2, 32: 3}
"""The descriptor's word for a swizzle over so many bytes (PTX ISA, Matrix Descriptor Format)."""


@dataclass(frozen=True)
class Matrix:
    """How an operand of `wgmma` lies in shared memory.

    Rows of `width` bytes (32, 64 or 128), eight of which are a swizzled piece; rows run along the
    sum, or, `turned`, along the operand's own axis. `stride` bytes are from a piece to the next
    one across its rows, `leading` from one panel of rows to the next (of a turned one only).
    """

    width: int
    turned: bool
    stride: int
    leading: int = 16

    @property
    def descriptor(self) -> int:
        """All but the address."""
        return _SWIZZLES[self.width] << 62 | self.stride >> 4 << 32 | self.leading >> 4 << 16


@dataclass(frozen=True)
class Multiply:
    """D[64, cols] += A[64, k] * B[cols, k] by a warpgroup, k being 32 bytes of elements.

    Warp w of the four has the sums of rows 16 w .. 16 w + 15, laid out over its threads as those of
    `mma.m16n8`, one such tile after another.
    """

    lhs: str
    rhs: str
    sums: str
    cols: int
    a: Matrix
    b: Matrix

    def __call__(self, sums: Expr, lhs: Expr, rhs: Expr) -> Stmt:
        """Begin to add up; the sums are neither read nor written before `wait`."""
        half = self.lhs in ("f16", "bf16")
        kind, letter = ("float", "f") if self.sums == "f32" else ("int", "r")
        count = self.cols // 2
        deep = 16 if half else 8 if self.lhs == "tf32" else 32
        shape = f"m64n{self.cols}k{deep}.{self.sums}.{self.lhs}.{self.rhs}"
        regs = ", ".join(f"%{i}" for i in range(count))
        after = ", 1, 1" if self.sums == "f32" else ""
        if half:
            after += f", {int(self.a.turned)}, {int(self.b.turned)}"
        name = f"tvmext_wgmma_{shape.replace('.', '_')}_{_tag(self.a)}_{_tag(self.b)}"
        code = function(
            name,
            f"{kind}* d, const void* lhs, const void* rhs",
            *(
                f"unsigned long long {x} = {matrix.descriptor:#x}ull | "
                f"(({SHARED}({given}) & 0x3FFFF) >> 4);"
                for x, given, matrix in (("a", "lhs", self.a), ("b", "rhs", self.b))
            ),
            'asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; '
            f"wgmma.mma_async.sync.aligned.{shape} {{{regs}}}, %{count}, %{count + 1}, p{after}; }}"
            f'" : {_registers(letter, count)} : "l"(a), "l"(b));',
        )
        return call(name, code, sums, lhs, rhs)


def fence(sums: Expr, kind: str, count: int) -> Stmt:
    """Before the first product, and when its registers were touched since: they are settled."""
    return _with_sums("tvmext_wgmma_fence", "wgmma.fence.sync.aligned", sums, kind, count)


def wait(groups: int, sums: Expr, kind: str, count: int) -> Stmt:
    """Until all but the last `groups` groups of products are done."""
    line = f"wgmma.wait_group.sync.aligned {groups}"
    return _with_sums(f"tvmext_wgmma_wait_{groups}", line, sums, kind, count)


def commit() -> Stmt:
    """Close a group of products."""
    return _plain("tvmext_wgmma_commit", "wgmma.commit_group.sync.aligned")


def fence_proxy() -> Stmt:
    """What ordinary instructions did to shared memory before is seen by asynchronous ones after."""
    return _plain("tvmext_fence_proxy", "fence.proxy.async.shared::cta")


def barrier_init(barrier: Expr, arrivals: int) -> Stmt:
    """A barrier of 8 bytes whose phases take so many arrivals."""
    return _on_barrier("init", f"mbarrier.init.shared::cta.b64 [%0], {arrivals}", barrier, arrivals)


def arrive(barrier: Expr) -> Stmt:
    """One arrival."""
    return _on_barrier("arrive", "mbarrier.arrive.shared::cta.b64 _, [%0]", barrier)


def arrive_expecting(barrier: Expr, size: int) -> Stmt:
    """One arrival; the phase takes `size` bytes more."""
    line = f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], {size}"
    return _on_barrier("expect", line, barrier, size)


def arrive_with_copies(barrier: Expr) -> Stmt:
    """One arrival, as soon as the copies (`cp.async`) that this thread asked for are there."""
    line = "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0]"
    return _on_barrier("copied", line, barrier)


def barrier_wait(barrier: Expr, parity: Expr) -> Stmt:
    """Until the phase of that parity is over; the phase before the first one is."""
    name = "tvmext_barrier_wait"
    code = function(
        name,
        "const void* barrier, unsigned parity",
        f"unsigned at = {SHARED}(barrier), done;",
        "do {",
        '  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; '
        'selp.u32 %0, 1, 0, p; }" : "=r"(done) : "r"(at), "r"(parity) : "memory");',
        "} while (!done);",
    )
    return call(name, code, barrier, parity)


def copy_tensor(target: Expr, tensor: Expr, at: Sequence[Expr], barrier: Expr) -> Stmt:
    """A box of a tensor, by its map, to shared memory; `barrier` counts its bytes.

    `at` are coordinates, innermost first; elements outside of the tensor are zeros.
    """
    rank = len(at)
    name = f"tvmext_copy_tensor_{rank}d"
    places = ", ".join(f"%{i + 3}" for i in range(rank))
    given = ", ".join(f'"r"(c{i})' for i in range(rank))
    code = function(
        name,
        "void* target, unsigned long long tensor, void* barrier, "
        + ", ".join(f"int c{i}" for i in range(rank)),
        f"unsigned to = {SHARED}(target), at = {SHARED}(barrier);",
        f'asm volatile("cp.async.bulk.tensor.{rank}d.shared::cluster.global'
        f".mbarrier::complete_tx::bytes [%0], [%1, {{{places}}}], [%2];"
        f'" : : "r"(to), "l"(tensor), "r"(at), {given} : "memory");',
    )
    return call(name, code, target, tensor, barrier, *at)


def store_chunk(target: Expr, source: Expr) -> Stmt:
    """16 bytes of registers to shared memory; asynchronous instructions see them after a fence."""
    name = "tvmext_store_chunk"
    given = ", ".join(f'"r"(words[{i}])' for i in range(4))
    code = function(
        name,
        "void* target, const void* source",
        "const unsigned* words = reinterpret_cast<const unsigned*>(source);",
        f"unsigned at = {SHARED}(target);",
        f'asm volatile("st.shared.v4.b32 [%0], {{%1, %2, %3, %4}};" : : "r"(at), {given} '
        ': "memory");',
    )
    return call(name, code, target, source)


def _tag(matrix: Matrix) -> str:
    kind = "t" if matrix.turned else "n"
    return f"{kind}{matrix.width}_{matrix.stride}_{matrix.leading}"


def _registers(letter: str, count: int) -> str:
    return ", ".join(f'"+{letter}"(d[{i}])' for i in range(count))


def _with_sums(name: str, line: str, sums: Expr, kind: str, count: int) -> Stmt:
    """An instruction that the compiler moves no access to the sums across."""
    ctype, letter = ("float", "f") if kind == "float32" else ("int", "r")
    name = f"{name}_{ctype}_{count}"
    asm = f'asm volatile("{line};" : {_registers(letter, count)} : : "memory");'
    return call(name, function(name, f"{ctype}* d", asm), sums)


def _plain(name: str, line: str) -> Stmt:
    return call(name, function(name, "", f'asm volatile("{line};" : : : "memory");'))


def _on_barrier(what: str, line: str, barrier: Expr, number: int | None = None) -> Stmt:
    name = f"tvmext_barrier_{what}" + ("" if number is None else f"_{number}")
    code = function(
        name,
        "void* barrier",
        f"unsigned at = {SHARED}(barrier);",
        f'asm volatile("{line};" : : "r"(at) : "memory");',
    )
    return call(name, code, barrier)
