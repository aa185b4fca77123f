"""Output files: complete or not there at all, and errors that say what is wrong with the place."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tvmext.errors import ArtifactError

_ELSEWHERE = "write to another place"
_REASONS = {
    errno.ENOENT: ("its folder does not exist", "create the folder first"),
    errno.ENOTDIR: ("its folder is a file", _ELSEWHERE),
    errno.EISDIR: ("it is a folder", "give the name of a file, such as model.so"),
    errno.EACCES: ("no permission to write there", _ELSEWHERE),
    errno.EPERM: ("no permission to write there", _ELSEWHERE),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.ENOSPC: ("the disk is full", f"free some space or {_ELSEWHERE}"),
    errno.EDQUOT: ("the disk quota is used up", f"free some space or {_ELSEWHERE}"),
    errno.EFBIG: ("the file would be larger than is allowed", f"raise the limit or {_ELSEWHERE}"),
    errno.ENAMETOOLONG: ("its name is too long", "choose a shorter name"),
}


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yields a file in the folder of `path` to write to; it becomes `path` when the block ends.

    A reader sees the old file or the whole new one, also after a kill or a power cut. If the block
    raises, the old file stays. Raises ArtifactError, before the block if it can already tell, when
    `path` cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with naming(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            unfinished.open("xb").close()
            yield unfinished
            _sync(unfinished)
            os.replace(unfinished, path)
            _sync(path.parent)
    finally:
        discard(unfinished)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns an OSError in the block into an ArtifactError about `path`."""
    try:
        yield
    except OSError as error:
        reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), _ELSEWHERE))
        raise ArtifactError(f"cannot write {path}: {reason}", hint=hint) from error


def scratch_folder(output: Path) -> Path:
    """Where the parts of `output` lie while it is linked: beside it, on the same disk."""
    return output.with_name(f"{output.name}.parts")


def discard(output: Path) -> None:
    """Remove an unfinished output and its parts, as far as that is possible."""
    with suppress(OSError):
        output.unlink(missing_ok=True)
    shutil.rmtree(scratch_folder(output), ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until the file, or the entries of the folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
