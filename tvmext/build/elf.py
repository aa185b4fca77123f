"""One section of an ELF file, read without loading the file.

Layout after the System V ABI (gabi), chapter 4: file header, section header table, string table.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

METADATA_SECTION = ".tvmext"
"""Where a compiled library keeps its metadata as JSON; not part of the memory image."""

MACHINES = {62: "x86_64", 183: "aarch64"}
"""e_machine -> the name of `platform.machine()`."""

_MAGIC = b"\x7fELF"
_HEADER = struct.Struct(
    "<4sBB10xHH20xQ10xHHH"
)  # magic class data type machine shoff size n strings
_SECTION = struct.Struct("<I20xQQ24x")  # name offset size


@dataclass(frozen=True)
class Section:
    """The content of a section, and the machine the file is for; None if there is no such section.

    `machine` is a name as `platform.machine()` gives it, or "machine N" for one that is not known.
    """

    content: bytes | None
    machine: str


def is_elf(path: Path) -> bool:
    """Whether it is a file that begins as an ELF file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read_section(path: Path, name: str) -> Section:
    """The section called `name` of a 64-bit little-endian ELF file.

    Raises ValueError if it is not such a file or is cut short, OSError if it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            magic, bits, order, _, machine, table, each, count, strings = _HEADER.unpack(
                _read(file, 0, _HEADER.size, size)
            )
            if magic != _MAGIC or (bits, order) != (2, 1) or each != _SECTION.size:
                raise ValueError("it is not a 64-bit ELF file")
            headers = list(_SECTION.iter_unpack(_read(file, table, count * each, size)))
            names = _read(file, headers[strings][1], headers[strings][2], size)
            found = [h for h in headers if names[h[0] : names.index(b"\0", h[0])] == name.encode()]
            content = _read(file, found[0][1], found[0][2], size) if found else None
        except (struct.error, IndexError) as error:
            raise ValueError("it is cut short or damaged") from error
    return Section(content, MACHINES.get(machine, f"machine {machine}"))


def _read(file: BinaryIO, offset: int, length: int, size: int) -> bytes:
    if offset + length > size:
        raise ValueError("it is cut short or damaged")
    file.seek(offset)
    return file.read(length)
