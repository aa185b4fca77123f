"""What a user may choose about a compilation; the command line is generated from these fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import OptionError

DUMP_FORMATS = ("relax", "tir", "ll", "asm")
VIRTUAL_TENSORS = ("latency", "memory", "off")

WINOGRAD: Mapping[str, tuple[int, ...]] = {"off": (), "f2": (2,), "f4": (2, 4)}
"""For each choice, the tiles F(m, 3) of Winograd's method that convolutions may use, by m."""


def _option(default: Any, help_text: str, **choices: Any) -> Any:
    return field(default=default, metadata={"help": help_text, **choices})


@dataclass(frozen=True)
class Options:
    """Options of `tvmext.compile`. Hashable; two equal values compile to the same code."""

    opt_level: int = _option(
        3, "0 compiles operator by operator, 1 fuses them, 2 and 3 also change layouts", short="-O"
    )
    fast_math: bool = _option(
        False, "let CUDA code use faster, less exact functions; denormal numbers become 0"
    )
    tf32: bool = _option(
        False, "let CUDA code round the factors of float32 products to 10 bits, on tensor cores"
    )
    cuda_graph: bool = _option(
        False,
        "launch what CUDA code does at every run alike as one graph; the first run must be alone",
    )
    virtual_tensors: str = _option(
        "latency",
        "what operators that only move data give way to: the fastest, the least memory, or nothing",
        metavar="|".join(VIRTUAL_TENSORS),
    )
    donate: tuple[str, ...] = _option(
        (),
        "inputs that a run may overwrite with the output that updates them, such as caches of keys "
        "and values",
        metavar="NAME",
    )
    disabled_pass: tuple[str, ...] = _option((), "passes to leave out, by name")
    pass_config: tuple[tuple[str, bool | int | str], ...] = _option(
        (), "TVM pass configuration, KEY=VALUE", metavar="KEY=VALUE"
    )
    print_ir_before: tuple[str, ...] = _option((), "print the module before these passes")
    print_ir_after: tuple[str, ...] = _option((), "print the module after these passes")
    print_pass_times: bool = _option(False, "print how long each pass took")
    winograd: str = _option(
        "f2",
        "how 3x3 convolutions may round: f2 errs by some 3e-6 of the output's root mean square at "
        "most, as plain sums do, f4 is faster and errs by 5e-5, off adds products up as they are",
        choices=tuple(WINOGRAD),
    )
    cost_model: str = _option(
        "analytic",
        "what chooses among schedules for CPUs: the price of each rule, what was learned from "
        "measurements where it is sure of a gain, or such weights from a file",
        metavar="analytic|learned|PATH",
    )
    records: str = _option(
        "",
        "a file of measurements by `tvmext tune`, which decide for the kernels that they fit",
        metavar="FILE",
    )
    dump_code: tuple[str, ...] = _option(
        (), f"write intermediate code beside the output: {', '.join(DUMP_FORMATS)}"
    )

    def __post_init__(self) -> None:
        if self.opt_level not in range(4):
            raise OptionError(f"opt_level is {self.opt_level}", hint="0, 1, 2 or 3")
        if self.winograd not in WINOGRAD:
            raise OptionError(f"winograd is '{self.winograd}'", hint=", ".join(WINOGRAD))
        if self.virtual_tensors not in VIRTUAL_TENSORS:
            raise OptionError(
                f"virtual_tensors is '{self.virtual_tensors}'",
                hint=f"one of {', '.join(VIRTUAL_TENSORS)}",
            )
        for name in self.dump_code:
            if name not in DUMP_FORMATS:
                raise OptionError(
                    f"cannot dump code as '{name}'", hint=f"one of {', '.join(DUMP_FORMATS)}"
                )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Options:
        """The options whose `dataclasses.asdict` went through JSON, which turns tuples to lists."""
        return cls(**{name: _as_tuple(value) for name, value in fields.items()})


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
