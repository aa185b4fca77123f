"""What a compilation is asked to do, as plain data that travels to the child process."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tvmext.errors import OptionError
from tvmext.frontends.dims import DimSpec
from tvmext.options import Options

if TYPE_CHECKING:
    from tvmext.frontends.model import Model


@dataclass(frozen=True)
class CompileRequest:
    """One compilation: a model on disk, what to make of it, and where to put the library.

    `dims`, `trust` and `model_format` are as in `tvmext.compile`. Files of
    `options.dump_code` begin with the path `dump_prefix`. `name` is what messages call the model;
    `one_by_one` builds every kernel alone first, to find the one that crashes LLVM. `cache` is where
    compiled kernels are kept, as in `cache.cache_for`.
    """

    model: str
    output: str
    target: str | Mapping[str, Any] = "llvm"
    dims: Mapping[str, DimSpec] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    trust: bool = False
    model_format: str | None = None
    dump_prefix: str = ""
    name: str = ""
    one_by_one: bool = False
    cache: str | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    """What functions other than `tvmext.api.compile_here` are told beside, in terms of JSON."""

    def load(self, report: Callable[..., None]) -> Model:
        """Read the model, in the process that compiles it. Raises what `frontends.load` raises."""
        from tvmext.frontends import load

        report("load", self.name)
        return load(
            self.model,
            dims=self.dims,
            trust=self.trust,
            model_format=self.model_format,
            name=self.name,
        )

    def to_json(self) -> str:
        """One line of text that `from_json` reads back. Raises OptionError for foreign objects."""
        return json.dumps(asdict(self), default=_integer)

    @classmethod
    def from_json(cls, text: str) -> CompileRequest:
        values = json.loads(text)
        dims = {
            name: tuple(size) if isinstance(size, list) else size
            for name, size in values["dims"].items()
        }
        options = Options.from_json(values["options"])
        return cls(**{**values, "options": options, "dims": dims})


def _integer(value: object) -> int:
    """What JSON does not know but Python takes for an integer, such as one of NumPy's."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise OptionError(
            f"{value!r} cannot be an argument of a compilation", hint="numbers and text"
        ) from None
