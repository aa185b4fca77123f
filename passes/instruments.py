"""What a user sees of the passes: progress, the module before and after, the time of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm.ir.instrument import pass_instrument

from tvmext.errors import OptionError
from tvmext.options import Options


@pass_instrument
class Watch:
    """Reports each pass of the pipeline as it begins, and prints the module where asked to.

    Passes that other passes run inside themselves are not reported, but can be printed.
    """

    def __init__(
        self, passes: Sequence[tvm.transform.Pass], options: Options, report: Callable[[str], None]
    ) -> None:
        self._names = {p.info.name for p in passes}
        self._before, self._after = set(options.print_ir_before), set(options.print_ir_after)
        self._report = report
        wanted = {*options.disabled_pass, *self._before, *self._after}
        if unknown := sorted(wanted - self._names - {"all"}):
            raise OptionError(
                f"no pass is named '{unknown[0]}'", hint=f"one of {', '.join(sorted(self._names))}"
            )

    def run_before_pass(self, mod: tvm.IRModule, info: Any) -> None:
        """Called by TVM; `info.name` is the pass."""
        if info.name in self._names:
            self._report(info.name)
            self._print(mod, info.name, "before", self._before)

    def run_after_pass(self, mod: tvm.IRModule, info: Any) -> None:
        """Called by TVM; `info.name` is the pass."""
        if info.name in self._names:
            self._print(mod, info.name, "after", self._after)

    def _print(self, mod: tvm.IRModule, name: str, when: str, wanted: set[str]) -> None:
        if name in wanted or "all" in wanted:
            print(f"# {when} {name}\n{mod.script(show_meta=False)}", flush=True)
