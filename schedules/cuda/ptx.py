"""Instructions that CUDA C++ has no words for, as calls in TIR (PTX ISA 8.5).

Each is a small device function around one line of assembly. Fragments are arrays of registers of a
thread; shared memory is given by address.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from tvmext.arch import dtype_bits

from ..kernel.emit import index

STEP_BYTES = 32
"""Bytes along the sum that one instruction takes of every row, whatever their type."""
CHUNK_BYTES = 16
"""A row of an 8x8 matrix of `ldmatrix`, and the widest copy of one thread."""


@dataclass(frozen=True)
class Multiply:
    """D[16, 8] += A[16, k] * B[k, 8], k being `STEP_BYTES` of elements, sums of type `sums`.

    `lhs` and `rhs` are the types of PTX. `whole` is false before sm_80, where the same registers
    take two or four smaller instructions.
    """

    lhs: str
    rhs: str
    sums: str
    whole: bool

    def __call__(self, sums: Expr, lhs: Expr, rhs: Expr) -> Stmt:
        kind = "float" if self.sums == "f32" else "int"
        name = f"tvmext_mma_{self.lhs}_{self.rhs}" + ("" if self.whole else "_small")
        code = function(
            name,
            f"{kind}* d, const unsigned* a, const unsigned* b",
            *(self._line(*part) for part in self._parts()),
        )
        return call(name, code, sums, lhs, rhs)

    def _parts(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
        """Shape of each instruction, and its registers of the sums, of lhs and of rhs."""
        half = self.lhs in ("f16", "bf16")
        if self.whole:
            depth = {"f16": 16, "bf16": 16, "tf32": 8}.get(self.lhs, 32)
            return [(f"m16n8k{depth}", (0, 1, 2, 3), (0, 1, 2, 3), (0, 1))]
        if half:
            return [("m16n8k8", (0, 1, 2, 3), (2 * k, 2 * k + 1), (k,)) for k in (0, 1)]
        return [
            ("m8n8k16", (2 * row, 2 * row + 1), (2 * k + row,), (k,))
            for k in (0, 1)
            for row in (0, 1)
        ]

    def _line(self, shape: str, d: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...]) -> str:
        number = iter(range(12))
        sums, left, right = (
            "{" + ", ".join(f"%{next(number)}" for _ in part) + "}" for part in (d, a, b)
        )
        letter = "f" if self.sums == "f32" else "r"
        outs = ", ".join(f'"+{letter}"(d[{i}])' for i in d)
        ins = ", ".join([f'"r"(a[{i}])' for i in a] + [f'"r"(b[{i}])' for i in b])
        types = f"{self.sums}.{self.lhs}.{self.rhs}.{self.sums}"
        return (
            f'asm volatile("mma.sync.aligned.{shape}.row.col.{types} '
            f'{sums}, {left}, {right}, {sums};" : {outs} : {ins});'
        )


def load_matrices(fragment: Expr, row: Expr, transposed: bool) -> Stmt:
    """Four 8x8 matrices of 16-bit elements; thread t gives the address of row t, 8 per matrix.

    Thread t gets of each matrix the elements 2 * (t % 4) and the next of row t // 4 (of column
    t // 4 if `transposed`). Elements of other sizes travel as pairs or parts of 16-bit ones.
    """
    trans = ".trans" if transposed else ""
    name = "tvmext_ldmatrix" + trans.replace(".", "_")
    code = function(
        name,
        "unsigned* d, const void* row",
        "unsigned at = (unsigned)__cvta_generic_to_shared(row);",
        f'asm volatile("ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 '
        '{%0, %1, %2, %3}, [%4];" : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(at) '
        ': "memory");',
    )
    return call(name, code, fragment, row)


def round_to_tf32(fragment: Expr) -> Stmt:
    """Four float32 numbers to the nearest with 10 bits of mantissa, ties away from zero."""
    lines = (
        f'asm volatile("cvt.rna.tf32.f32 %0, %1;" : "=r"(d[{i}]) : "f"(__uint_as_float(d[{i}])));'
        for i in range(4)
    )
    return call("tvmext_tf32", function("tvmext_tf32", "unsigned* d", *lines), fragment)


def round_pairs(fragment: Expr, results: Expr, kind: str) -> Stmt:
    """Eight float32 numbers, results of two `mma` side by side, as four registers of halves."""
    pair, rounded = {
        "f16": ("__half2", "__floats2half2_rn"),
        "bf16": ("__nv_bfloat162", "__floats2bfloat162_rn"),
    }[kind]
    lines = (
        line
        for i in range(4)
        for line in (
            f"{pair} pair{i} = {rounded}(s[{2 * i}], s[{2 * i + 1}]);",
            f"d[{i}] = *reinterpret_cast<unsigned*>(&pair{i});",
        )
    )
    name = f"tvmext_round_{kind}"
    code = function(name, "unsigned* d, const float* s", *lines)
    return call(name, code, fragment, results)


def load_four(target: Expr, source: Expr) -> Stmt:
    """Four float32 numbers as one access, of which TVM, which would add barriers, does not know."""
    line = "*reinterpret_cast<float4*>(d) = *reinterpret_cast<const float4*>(s);"
    code = function("tvmext_load_four", "float* d, const float* s", line)
    return call("tvmext_load_four", code, target, source)


def exp2(x: Expr) -> Expr:
    """2^x within 2^-22 of it; what is below 2^-126 is 0 (PTX ISA, ex2)."""
    code = """
__forceinline__ __device__ float tvmext_exp2(float x) {
  float d;
  asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(d) : "f"(x));
  return d;
}
"""
    return cuda_func_call("tvmext_exp2", x, source_code=code, return_type="float32")


def copy_async(target: Expr, source: Expr, size: int, inside: Expr) -> Stmt:
    """`size` bytes (4, 8 or 16) from global to shared memory, or zeros; nothing waits for it.

    16 bytes go past the L1 cache, which has no use for what shared memory holds.
    """
    name = f"tvmext_cp_async_{size}"
    cache = "cg" if size == CHUNK_BYTES else "ca"
    code = function(
        name,
        "void* target, const void* source, bool inside",
        "unsigned at = (unsigned)__cvta_generic_to_shared(target);",
        f"unsigned bytes = inside ? {size} : 0;",
        f'asm volatile("cp.async.{cache}.shared.global [%0], [%1], {size}, %2;" : : "r"(at), '
        '"l"(source), "r"(bytes) : "memory");',
    )
    return call(name, code, target, source, inside)


def commit() -> Stmt:
    """Close a group of this thread's copies."""
    name = "tvmext_cp_async_commit"
    return call(name, function(name, "", 'asm volatile("cp.async.commit_group;" : : : "memory");'))


def wait(groups: int) -> Stmt:
    """Until all but the last `groups` groups of this thread's copies have arrived."""
    name = f"tvmext_cp_async_wait_{groups}"
    line = f'asm volatile("cp.async.wait_group {groups};" : : : "memory");'
    return call(name, function(name, "", line))


def address(buffer: Var, offset: Expr | int, dtype: str | None = None) -> Expr:
    """Where an element, of type `dtype` if not the buffer's, of a buffer of the kernel's own is.

    By way of the buffer itself: an index would make TVM shrink the buffer to what it sees of it.
    """
    dtype = dtype or str(buffer.ty.dtype)
    size = dtype_bits(dtype) // 8
    return tirx.op.ptr_byte_offset(buffer, index(offset) * size, dtype)


def function(name: str, parameters: str, *lines: str) -> str:
    """The source of a device function."""
    body = "\n".join(f"  {line}" for line in lines)
    return f"\n__forceinline__ __device__ void {name}({parameters}) {{\n{body}\n}}\n"


def call(name: str, code: str, *arguments: Expr) -> Stmt:
    """A call of the device function `name`, whose source is `code`."""
    return tirx.Evaluate(cuda_func_call(name, *arguments, source_code=code))
