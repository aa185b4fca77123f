"""Instructions that multiply bytes and add the products of neighbours to 32-bit sums.

    sum[j] += a[0] * b[j, 0] + .. + a[step - 1] * b[j, step - 1]

x86 has VNNI (four bytes, those of `a` unsigned, those of `b` signed, exact) and, everywhere,
products of pairs of 16 bits; its older product of pairs of bytes, vpmaddubsw, saturates. Arm has
SDOT and UDOT, for operands of one kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from tvmext.arch import CpuArch

BYTES = ("int8", "uint8")


@dataclass(frozen=True)
class Dot:
    """One such instruction, by LLVM's name, over `lanes` sums.

    `lhs` and `rhs` are the types of byte that it takes; "" is either. `wide`: it takes elements of
    16 bits, which bytes become in a register, and the sum is added by another instruction.
    """

    intrinsic: str
    lanes: int
    step: int
    lhs: str = ""
    rhs: str = ""
    wide: bool = False

    def flips(self, lhs: str) -> bool:
        """Whether `lhs` has to be moved by 128 to be of the type that the instruction takes."""
        return self.lhs not in ("", lhs)

    @property
    def word(self) -> str:
        """The integer type that holds the `step` neighbours of one lane."""
        return f"int{8 * self.step}"

    def add(self, sums: Expr, lhs: Expr, rhs: Expr, types: tuple[str, str]) -> Expr:
        """`sums` and one step more; `lhs` and `rhs` are vectors of words of bytes of `types`."""
        count = self.lanes * self.step
        factors = [
            tirx.reinterpret(f"{kind}x{count}", words) for kind, words in zip(types, (lhs, rhs))
        ]
        if not self.wide:
            return _call(self.intrinsic, self.lanes, sums, *factors)
        pairs = [tirx.Cast(f"int16x{count}", factor) for factor in factors]
        return sums + _call(self.intrinsic, self.lanes, *pairs)


def _call(intrinsic: str, lanes: int, *args: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(f"int32x{lanes}", intrinsic, *args)


def find_dot(types: tuple[str, str] | None, arch: CpuArch) -> Dot | None:
    """The fastest instruction of `arch` for products of `types`, if it has one."""
    if types is None or not set(types) <= set(BYTES):
        return None
    fitting = (each for each in _instructions(arch) if each.rhs in ("", types[1]))
    return next(fitting, None)


def _instructions(arch: CpuArch) -> Iterator[Dot]:
    """What `arch` has, the fastest first."""
    if arch.isa == "aarch64":
        if "dotprod" in arch.features:
            yield Dot("llvm.aarch64.neon.sdot.v4i32.v16i8", 4, 4, "int8", "int8")
            yield Dot("llvm.aarch64.neon.udot.v4i32.v16i8", 4, 4, "uint8", "uint8")
        return
    bits = arch.vector_bits
    if ("avx512vnni" if bits == 512 else "avxvnni") in arch.features:
        yield Dot(f"llvm.x86.avx512.vpdpbusd.{bits}", bits // 32, 4, "uint8", "int8")
    yield Dot(_PAIRS[bits], bits // 32, 2, wide=True)


_PAIRS = {
    512: "llvm.x86.avx512.pmaddw.d.512",
    256: "llvm.x86.avx2.pmadd.wd",
    128: "llvm.x86.sse2.pmadd.wd",
}
"""Products of 16-bit elements, neighbours added: SSE2, AVX2, AVX-512BW (in x86-64-v4)."""
