"""Other commits: checkouts in a temporary folder, and what their compiler makes of a model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..zoo.runner import Row, end, finished

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("build_side.py").read_text(encoding="utf-8")
"""What runs in a checkout; it knows only the public functions of tvmext."""

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class UnknownCommit(Exception):
    """There is no such commit in this clone."""


def git(*arguments: str, root: Path = ROOT) -> str:
    """What git prints; raises UnknownCommit with what it complains of."""
    process = subprocess.Popen(
        ["git", "-C", str(root), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C does not reach it
    )
    try:
        out, err = process.communicate()
    except BaseException:
        process.communicate()  # half a worktree could not be taken away
        raise
    if process.returncode:
        raise UnknownCommit(err.strip() or f"git {arguments[0]} failed")
    return out.strip()


def commit_of(name: str, root: Path = ROOT) -> str:
    """The full hash of a commit."""
    return git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", root=root)


def is_clean(root: Path = ROOT) -> bool:
    """Whether the checkout is its commit and nothing else."""
    return not git("status", "--porcelain", "--untracked-files=no", root=root)


def subject(commit: str, root: Path = ROOT) -> str:
    """``1234567 What it does``."""
    return git("log", "-1", "--format=%h %s", commit, root=root)


def between(good: str, bad: str, root: Path = ROOT) -> list[str]:
    """The commits after `good` up to and with `bad`, oldest first, as main went through them."""
    found = git("rev-list", "--first-parent", "--reverse", f"{good}..{bad}", root=root)
    return found.split()


class Checkouts:
    """Worktrees of commits, made when they are asked for; `folder` must outlive this."""

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        self.folder, self.root = folder, root
        self._made: dict[str, Path] = {}

    def of(self, commit: str) -> Path:
        """The checkout of a commit."""
        if commit not in self._made:
            path = self._made[commit] = self.folder / commit[:12]
            git("worktree", "add", "--detach", "--force", str(path), commit, root=self.root)
        return self._made[commit]

    def remove(self) -> None:
        """Take all of them out of git's list, too."""
        for path in self._made.values():
            with suppress(UnknownCommit):  # git could not make it
                git("worktree", "remove", "--force", str(path), root=self.root)


class Interrupted(SystemExit):
    """A signal came that ends processes; the code is 128 + its number, as shells have it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted in here, once; what follows is not disturbed by more."""
    before = {number: signal.getsignal(number) for number in INTERRUPTS}

    def interrupt(number: int, _: object) -> None:
        deaf()
        raise Interrupted(128 + number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup and shells leave it for the background
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deaf() -> None:
    """Ignore the signals."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Processes that are started have their temporary files there: what is killed leaves them."""
    folder.mkdir()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


@contextmanager
def checkouts(root: Path = ROOT) -> Iterator[Checkouts]:
    """Checkouts that go with the context, also where a signal ends it."""
    with (
        interruptible(),
        # a compiler whose parent was killed may still write for a moment
        TemporaryDirectory(prefix="tvmext-commits-", ignore_cleanup_errors=True) as folder,
        temporary_files_in(Path(folder, "tmp")),
    ):
        made = Checkouts(Path(folder), root)
        try:
            yield made
        finally:
            deaf()
            made.remove()


def build(root: Path, request: Mapping[str, Any], limit: float) -> Row:
    """What the compiler in the checkout `root` makes of a request (build_side.py), or its error."""
    return builds([(root, request)], limit)[0]


def builds(wanted: Sequence[tuple[Path, Mapping[str, Any]]], limit: float) -> list[Row]:
    """`build` for several checkouts at once."""
    started: list[subprocess.Popen[str]] = []
    try:
        for root, request in wanted:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", SCRIPT, json.dumps(request)],
                    cwd=root,
                    env=os.environ | {"PYTHONPATH": str(root), "TVM_NUM_THREADS": "1"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
        return [finished(process, limit) for process in started]
    finally:
        for process in started:
            end(process)
