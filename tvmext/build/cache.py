"""Compiled kernels on disk, found by what they were made from; shared by all compilations here.

An entry is a file named after the hash of everything that determines it, written to a temporary
file and renamed: processes may read and write at the same time, and whoever comes later replaces a
file by an equal one. It begins with the hash of its content; one that does not is not there. What
cannot be read or written costs time and is no error.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

OFF = "off"
VARIABLE = "TVMEXT_CACHE"
MOST_BYTES = 1 << 30
"""The size that `Cache.trim` keeps the folder below: some ten thousand kernels."""
_DIGEST = hashlib.sha256().digest_size


class Cache:
    """Bytes by key, in `folder`; a cache without one holds nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, key: str) -> bytes | None:
        """What was put under `key`, None if there is nothing or not the whole of it."""
        if not self.folder:
            return None
        path = self._path(self.folder, key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, value = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(value).digest() != digest:
            return None
        with suppress(OSError):
            os.utime(path)  # it was used: `trim` takes the others first
        return value

    def put(self, key: str, value: bytes) -> None:
        if not self.folder:
            return
        path = self._path(self.folder, key)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished.write_bytes(hashlib.sha256(value).digest() + value)
            os.replace(unfinished, path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def trim(self, most_bytes: int = MOST_BYTES) -> None:
        """Above `most_bytes` take away what was not used for longest, down to three quarters."""
        if not self.folder:
            return
        files = []
        for path in self.folder.glob("*/*"):
            with suppress(OSError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        if total <= most_bytes:
            return
        for _, size, path in sorted(files):
            if total <= most_bytes * 3 // 4:
                return
            with suppress(OSError):
                path.unlink()
            total -= size

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / key


def cache_for(chosen: str | None) -> Cache:
    """The cache in the folder that is chosen, else in $TVMEXT_CACHE, else in the user's.

    "off" is no cache. The user's own is ~/.cache/tvmext (XDG Base Directory Specification).
    """
    chosen = chosen or os.environ.get(VARIABLE) or None
    if chosen == OFF:
        return Cache(None)
    if chosen:
        return Cache(Path(chosen).expanduser().absolute())
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The specification: a relative path is invalid, and counts as none.
        home = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    except RuntimeError:  # nobody's home
        return Cache(None)
    return Cache(home / "tvmext")
