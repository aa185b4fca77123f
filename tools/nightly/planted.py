"""Whether a night finds what it is for: ``python -m tools.nightly.planted``.

In a clone of this repository five commits follow the last one. The second makes layer norms a tenth
slower, by computing every tenth row twice; the fourth makes exponentials wrong by half a percent;
the others change nothing. A night since the first has to find both, name the family of the kernels
and blame the right commits. With --quiet N, N nights of the same code have to find nothing. The
exit code is 1 if it did not go like that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from . import night
from .commits import ROOT, Interrupted, git, interruptible
from .history import History
from .judge import Alarm

SLOW = '''

    def apply(self, kernel: Kernel, workload: Stages, decision: Any, arch: Any) -> Any:
        made = super().apply(kernel, workload, decision, arch)
        return replace(made, func=made.func.with_body(again(made.func.body)))


def again(body: Any) -> Any:
    """Loops over rows go over every tenth row twice."""
    import tvm_ffi
    from tvm import tirx
    from tvm.ir import Var

    from ..kernel.analysis import substitute

    def twice(loop: tirx.For) -> tirx.For:
        if loop.loop_var.name != "row":
            return loop
        row = Var("row", loop.loop_var.ty)
        inside = substitute(loop.body, {loop.loop_var: row - row // 11})
        extent = loop.extent + loop.extent // 10
        return tirx.For(row, loop.min, extent, loop.kind, inside)

    return tvm_ffi.structural_map(body, (tirx.For, twice))
'''
IMPORTS = (
    "from __future__ import annotations\n\nfrom dataclasses import replace\nfrom typing import Any"
)

CASES = ("ops/norm/layer,197x384", "ops/softmax/12x128x128", "ops/gemm/64x64x64")
LIMIT = 900
"""Seconds for one process, which may have to wait for its turn on a machine that others use."""

SLOWER, WRONG = "Rows of norms", "Another approximation of exp"


@dataclass(frozen=True)
class Edit:
    """A commit: in `file`, `old` becomes `new`; without `old`, `new` goes to the end."""

    subject: str
    file: str
    old: str
    new: str


EDITS = (
    Edit("A word", "README.md", "", "\n\n"),
    Edit(SLOWER, "schedules/cpu/normalization.py", "", SLOW),
    Edit("Another word", "README.md", "", "\n"),
    Edit(WRONG, "schedules/cpu/exponential.py", "0.4999922513961792", "0.4699922513961792"),
    Edit("One more word", "README.md", "", "\n\n"),
)


def plant(folder: Path) -> Path:
    """A clone with the commits of `EDITS`; where it is."""
    clone = folder / "clone"
    git("clone", "--quiet", "--shared", str(ROOT), str(clone))
    for edit in EDITS:
        path = clone / edit.file
        text = path.read_text()
        assert edit.old in text, f"{edit.file} has no {edit.old}"
        text = text.replace(edit.old, edit.new) if edit.old else text.rstrip("\n") + edit.new
        if edit.subject == SLOWER:
            text = text.replace("from __future__ import annotations", IMPORTS, 1)
        path.write_text(text)
        who = ("-c", "user.name=tvmext", "-c", "user.email=tvmext@localhost")
        git(*who, "commit", "--quiet", "--all", "--message", edit.subject, root=clone)
    return clone


def spent(clone: Path, history: Path, options: Sequence[str]) -> list[Alarm]:
    """The alarms of one night in a clone."""
    only = [part for case in CASES for part in ("--only", case)]
    settings = ["--history", str(history), "--parts", "cases", "--limit", str(LIMIT)]
    command = ["-m", "tools.nightly", *settings, *only]
    environment = os.environ | {"PYTHONPATH": str(clone)}
    process = subprocess.Popen(
        [sys.executable, *command, *options], cwd=clone, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        code = process.wait()
    except Interrupted:
        process.terminate()
        process.wait()
        raise
    if code not in (0, 1):
        raise RuntimeError(f"the night ended with {code}")
    kept = History(history)
    device = night.device(night.targets())
    found = kept.alarms(kept.runs(device)[-1][0])
    kept.close()
    return found


def complaints(alarms: Sequence[Alarm]) -> list[str]:
    """What is missing among the alarms, and what should not be there."""
    wanted = {("slower", CASES[0], "normalization", SLOWER), ("wrong", CASES[1], "wrong", WRONG)}
    found = {(a.kind, a.name, a.what, a.culprit.partition(" ")[2]) for a in alarms}
    return [
        *(f"not found: {', '.join(one)}" for one in sorted(wanted - found)),
        *(f"found as well: {', '.join(one)}" for one in sorted(found - wanted)),
    ]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.nightly.planted",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--history", type=Path, help="keep the nights and their pages here")
    parser.add_argument("--quiet", type=int, default=0, metavar="N", help="nights of the same code")
    parser.add_argument("--under", default="", metavar="COMMAND", help="run what is timed under it")
    return parser.parse_args(arguments)


def main() -> int:
    """0 if everything was found, and nothing else."""
    args = parse()
    wrong: list[str] = []
    with interruptible(), TemporaryDirectory(prefix="tvmext-planted-") as made:
        history = args.history or Path(made) / "history"
        under = [f"--under={args.under}"]
        for number in range(args.quiet):
            alarms = spent(ROOT, history, ["--base", "HEAD", *under])
            print(f"quiet night {number + 1}: {alarms or 'no alarm'}", flush=True)
            wrong += [f"quiet night {number + 1}: {alarm}" for alarm in alarms]
        if not args.quiet:
            clone = plant(Path(made))
            wrong = complaints(spent(clone, history, ["--since", f"HEAD~{len(EDITS)}", *under]))
    print("\n".join(wrong) or "as it should be")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
