"""Whether a command line fails for a model."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto

from tvmext.errors import OptionError

TIMED_OUT = -1
"""Stands for the exit code of a command that took too long."""


@dataclass
class Command:
    """``{}`` in `words` is the model's path; without it the path is the last word.

    The command fails as it did the first time: with the same exit code and, if there is a `match`,
    with output that it is found in.
    """

    words: list[str]
    timeout: float
    match: str = ""
    code: int | None = None
    runs: int = 0

    @classmethod
    def parse(cls, text: str, timeout: float, match: str = "") -> Command:
        """Raises OptionError for a command that cannot be read."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            hint = "quotes in pairs: --check 'tvmext verify {}'"
            raise OptionError(f"--check {text}: {error}", hint=hint) from error
        try:
            re.compile(match)
        except re.error as error:
            hint = "a regular expression; a backslash before [ ( * + ? . means the character"
            raise OptionError(f"--match {match}: {error}", hint=hint) from error
        if not words:
            raise OptionError("--check is empty", hint="--check 'tvmext verify {}'")
        return cls(words if any("{}" in word for word in words) else [*words, "{}"], timeout, match)

    def fails(self, model: ModelProto) -> bool:
        """Run the command on a file with the model. Raises OptionError if there is no command."""
        self.runs += 1
        with tempfile.TemporaryDirectory(prefix="tvmext-reduce-") as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
            code, output = self._run([word.replace("{}", str(path)) for word in self.words], folder)
        if code == 0 or not re.search(self.match, output):
            return False
        self.code = code if self.code is None else self.code
        return code == self.code

    def _run(self, words: list[str], folder: str) -> tuple[int, str]:
        """The exit code and the output of a run in a folder of its own."""
        try:
            done = subprocess.run(
                words,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self.timeout,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            return TIMED_OUT, ""
        except OSError as error:
            raise OptionError(
                f"cannot run '{words[0]}': {error.strerror}", hint="--check 'tvmext verify {}'"
            ) from error
        return done.returncode, done.stdout
