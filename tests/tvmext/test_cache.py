"""The cache of compiled kernels: whole entries or none, bounded, shared by processes."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tvmext.build.cache import Cache, cache_for

KEY = "ab" + "0" * 62


def entry(folder: Path) -> Path:
    (found,) = folder.glob("*/*")
    return found


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    Cache(tmp_path).put(KEY, b"code")
    assert Cache(tmp_path).get(KEY) == b"code"
    assert Cache(tmp_path).get("cd" * 32) is None


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: b"", lambda c: c[:-1] + b"x"])
def test_a_damaged_entry_is_not_there_and_is_replaced(tmp_path: Path, damage) -> None:
    cache = Cache(tmp_path)
    cache.put(KEY, b"code")
    entry(tmp_path).write_bytes(damage(entry(tmp_path).read_bytes()))
    assert cache.get(KEY) is None
    cache.put(KEY, b"code")
    assert cache.get(KEY) == b"code"


def test_the_least_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    keys = [f"{n:064x}" for n in range(4)]
    for age, key in enumerate(keys):
        cache.put(key, bytes(1000))
        os.utime(next(tmp_path.glob(f"*/{key}")), (age, age))
    assert cache.get(keys[0])  # used now
    cache.trim(3500)
    assert [bool(cache.get(key)) for key in keys] == [True, False, False, True]


def put_many(folder: str) -> bool:
    cache = Cache(Path(folder))
    for turn in range(100):
        key = f"{turn % 5:064x}"
        cache.put(key, bytes([turn % 5]) * 5000)
        if cache.get(key) not in (None, bytes([turn % 5]) * 5000):
            return False
        cache.trim(12000)
    return True


def test_two_processes_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        assert all(pool.map(put_many, [str(tmp_path)] * 2))
    assert not list(tmp_path.glob("*/.*.tmp"))


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file")
    cache.put(KEY, b"code")
    assert cache.get(KEY) is None


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TVMEXT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_for(None).folder == tmp_path / "tvmext"
    monkeypatch.setenv("TVMEXT_CACHE", str(tmp_path / "own"))
    assert cache_for(None).folder == tmp_path / "own"
    assert cache_for(str(tmp_path)).folder == tmp_path
    assert cache_for("off").folder is None
