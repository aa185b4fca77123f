"""A CUDA source of TVM's as translation units of one kernel each, and what NVRTC needs around them.

Kernels share no code but the helpers above them, so each is compiled alone: several at a time, and
only those that no cache has. NVRTC has no host headers, and half a second of CUDA's C++ library
(libcu++) for a few names is too much per kernel; the stand-ins below take it no time.
"""

from __future__ import annotations

import re

_KERNEL = re.compile(
    r'^extern "C" __global__ void (?:__\w+__\([\d, ]+\) )*(\w+)\(.*[;{]$', re.M
)
_DEVICE_FUNCTION = re.compile(r"^(?:extern \"C\" |static )?__device__", re.M)


def kernels(source: str) -> dict[str, str]:
    """{name: a source of its own} of the kernels, each with all that stands above the first."""
    found = list(_KERNEL.finditer(source))
    if not found:
        return {}
    head = source[: found[0].start()]
    ends = [match.start() for match in found[1:]] + [len(source)]
    bodies = {
        match[1]: source[match.start() : end]
        for match, end in zip(found, ends)
        if match[0].endswith("{")
    }
    # A function that stands between kernels may be any one's.
    shared = "".join(body for body in bodies.values() if _DEVICE_FUNCTION.search(body))
    if shared:
        return dict.fromkeys(bodies, source)
    return {name: head + body for name, body in bodies.items()}


HEADERS = {
    "cuda/std/cstdint": """\
#pragma once
namespace cuda { namespace std {
typedef signed char int8_t; typedef unsigned char uint8_t;
typedef short int16_t; typedef unsigned short uint16_t;
typedef int int32_t; typedef unsigned int uint32_t;
typedef long long int64_t; typedef unsigned long long uint64_t;
} }
""",
    "cuda/std/type_traits": """\
#pragma once
namespace cuda { namespace std {
template <bool V> struct constant { static constexpr bool value = V; };
template <class A, class B> struct is_same : constant<false> {};
template <class A> struct is_same<A, A> : constant<true> {};
template <class A, class B> inline constexpr bool is_same_v = is_same<A, B>::value;
template <bool C, class A, class B> struct conditional { typedef A type; };
template <class A, class B> struct conditional<false, A, B> { typedef B type; };
template <bool C, class A = void> struct enable_if {};
template <class A> struct enable_if<true, A> { typedef A type; };
template <class A> struct is_floating_point
    : constant<is_same_v<A, float> || is_same_v<A, double>> {};
template <class A, class... B> inline constexpr bool is_any = (is_same_v<A, B> || ...);
template <class A> struct is_unsigned : constant<is_any<A, bool, unsigned char, unsigned short,
    unsigned int, unsigned long, unsigned long long>> {};
template <class A> struct is_integral : constant<is_unsigned<A>::value || is_any<A, char,
    signed char, short, int, long, long long>> {};
template <class A> struct is_signed : constant<is_floating_point<A>::value ||
    (is_integral<A>::value && !is_unsigned<A>::value)> {};
} }
""",
}
"""{name: text} of the headers that TVM's code includes, in so far as it uses them."""

PREAMBLE = """\
#include <cuda/std/cstdint>
using cuda::std::int8_t; using cuda::std::int16_t; using cuda::std::int32_t;
using cuda::std::int64_t; using cuda::std::uint8_t; using cuda::std::uint16_t;
using cuda::std::uint32_t; using cuda::std::uint64_t;
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
struct alignas(64) CUtensorMap_st { unsigned long long opaque[16]; };
typedef struct CUtensorMap_st CUtensorMap;
"""
"""What TVM's code takes from <stdint.h>, <math.h> and <cuda.h>."""
