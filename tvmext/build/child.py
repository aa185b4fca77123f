"""Compile in a child process: whatever happens there, the caller gets a library or an error."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tvmext import errors
from tvmext.errors import InternalError, TvmextError, UnsupportedError, UnsupportedOp

from .files import discard
from .request import CompileRequest

ENTRY = "tvmext.api:compile_here"
"""The function that the child calls with (request, report)."""

# The child imports what the parent imports, from the same places and from nowhere else.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tvmext.build.worker import main; main(int(sys.argv[2]), sys.argv[3])"
)
_CODE_STEP = "build"  # the step in which LLVM runs, which takes the kernels all at once
_TAIL_BYTES = 4000
_REPORT = (
    "compile with -O0 or leave a pass out with --disabled-pass NAME; "
    "please report this with the model"
)


class Progress(NamedTuple):
    """Work on `detail` (may be empty) of `step` began `seconds` after the start of the child."""

    step: str
    detail: str
    seconds: float


class ChildTraceback(Exception):
    """What the child printed or where it failed: the cause of the error raised in the parent."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def compile_in_child(
    request: CompileRequest,
    on_progress: Callable[[Progress], None] | None = None,
    on_output: Callable[[str], None] | None = None,
    *,
    entry: str = ENTRY,
) -> None:
    """Compile `request` into ``request.output``, a new file, in a process of its own.

    `on_progress` hears of every step; `on_output` gets what the child prints, as it comes. Raises
    what the compilation raises, and InternalError if the child crashes or is killed. If code
    generation fails, a second child builds kernel by kernel to name the one at fault. After an
    error, an interrupt included, neither a process nor the output file is left.
    """
    try:
        child = _run(request, on_progress, on_output, entry)
        if child.failed_in_code_generation:
            child = _run(replace(request, one_by_one=True), on_progress, on_output, entry)
        if error := child.error():
            raise error from ChildTraceback(child.trace())
    except BaseException:
        discard(Path(request.output))
        raise


def _run(
    request: CompileRequest,
    on_progress: Callable[[Progress], None] | None,
    on_output: Callable[[str], None] | None,
    entry: str,
) -> _Child:
    child = _Child(request, entry)
    try:
        child.listen(on_progress, on_output)
    finally:
        child.end()
    return child


class _Child:
    """A running worker (worker.py) and what it said."""

    def __init__(self, request: CompileRequest, entry: str) -> None:
        text = request.to_json()
        self.last = Progress("start", "", 0.0)
        self.result: dict[str, Any] = {}
        self._printed = b""
        messages, theirs = os.pipe()
        self._messages = messages
        arguments = [json.dumps(sys.path), str(theirs), entry]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs,),
                start_new_session=True,  # one group to kill; Ctrl-C reaches only the parent
            )
        except OSError:
            os.close(messages)
            raise
        finally:
            os.close(theirs)
        assert self._process.stdin
        with suppress(BrokenPipeError):  # it died at once; listen() and error() tell how
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()

    @property
    def failed_in_code_generation(self) -> bool:
        """Whether building the kernels one by one will tell more; not if memory ran out."""
        return (
            self.last.step == _CODE_STEP
            and isinstance(self.error(), InternalError)
            and not self._was_killed
        )

    def listen(
        self,
        on_progress: Callable[[Progress], None] | None,
        on_output: Callable[[str], None] | None,
    ) -> None:
        """Take in messages and printed text until the child closes both pipes."""
        assert self._process.stdout
        pending = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._messages, selectors.EVENT_READ)
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while self._messages in selector.get_map():
                for key, _ in selector.select():
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fd == self._messages:
                        *lines, pending = (pending + data).split(b"\n")
                        for line in lines:
                            self._take(json.loads(line), on_progress)
                    else:
                        self._hear(data, on_output)
        self._kill()
        while data := os.read(self._process.stdout.fileno(), 1 << 16):
            self._hear(data, on_output)

    def end(self) -> None:
        """Kill what is left of the process group and release the pipes."""
        self._kill()
        self._process.wait()
        os.close(self._messages)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            stream.close()

    def error(self) -> TvmextError | None:
        """What the parent is to raise, None after a success."""
        if "done" in self.result:
            return None
        return _rebuild(self.result, self.last) if self.result else self._crash()

    def trace(self) -> str:
        """The child's traceback, or the last of what it printed."""
        return self.result.get("traceback") or self._printed.decode(errors="replace")

    def _take(self, message: dict[str, Any], on_progress: Any) -> None:
        if "step" not in message:
            self.result = message
            return
        self.last = Progress(**message)
        if on_progress:
            on_progress(self.last)

    def _hear(self, data: bytes, on_output: Any) -> None:
        self._printed = (self._printed + data)[-_TAIL_BYTES:]
        if on_output:
            on_output(data.decode(errors="replace"))

    def _kill(self) -> None:
        if self._process.returncode is None:  # not reaped: the id is still its own
            os.killpg(self._process.pid, signal.SIGKILL)

    def _crash(self) -> InternalError:
        code, where = self._process.returncode, _where(self.last)
        if self._was_killed:
            return InternalError(
                f"the compiler was killed, most likely because memory ran out ({where})",
                hint="free some memory, or compile on a machine with more",
            )
        signalled = code < 0
        how = (
            f"crashed with {signal.Signals(-code).name}" if signalled else f"ended with code {code}"
        )
        return InternalError(f"the compiler {how} ({where})", hint=_REPORT)

    @property
    def _was_killed(self) -> bool:
        """Whether somebody else killed it before it said how it went."""
        return not self.result and self._process.returncode == -signal.SIGKILL


def _rebuild(result: dict[str, Any], last: Progress) -> TvmextError:
    """The error that the child described, as the same class where it is one of tvmext's."""
    if result["error"] == UnsupportedError.__name__:
        ops = [UnsupportedOp(**op) for op in result["ops"]]
        return UnsupportedError(ops, hint=result["hint"])
    kind = getattr(errors, result["error"], None)
    if isinstance(kind, type) and issubclass(kind, TvmextError):
        return kind(result["message"], hint=result["hint"])
    return InternalError(f"{result['message']} ({_where(last)})", hint=_REPORT)


def _where(last: Progress) -> str:
    return f"at step '{last.step}', {last.detail}" if last.detail else f"at step '{last.step}'"
