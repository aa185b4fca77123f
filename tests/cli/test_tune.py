"""``tvmext tune``: records are written, continued, and taken by `compile` and `explain`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli import networks
from tests.cli.conftest import Call

HERE = ("--target", "llvm -num-cores=1")


def test_records_are_written_and_used(tvmext: Call, tmp_path: Path) -> None:
    model, records = tmp_path / "net.onnx", tmp_path / "net.jsonl"
    model.write_bytes(networks.linear(batch=40).SerializeToString())
    arguments = (model, "--records", records, "--top", "2", *HERE)
    first = tvmext("tune", *arguments, "--json")
    assert first.code == 0, first.err
    (kernel,) = first.json["kernels"]
    assert (kernel["rule"], kernel["calls"], kernel["tried"]) == ("gemm", 1, 2)
    assert 0 < kernel["best"] <= kernel["seconds"]
    lines = records.read_text().splitlines()
    assert [json.loads(line)["own"] for line in lines] == [True, False]

    records.write_text("\n".join([*lines, '{"cut off']))
    again = tvmext("tune", *arguments)
    assert "measure" not in again.err, "everything is there already"
    assert "can be saved" in again.out

    told = tvmext("explain", model, "--records", records, *HERE, "--json").json["prices"]
    assert told[0]["why"].startswith("measured: ")
    assert told[0]["others"][0]["seconds"] > 0
    elsewhere = tvmext("explain", model, "--records", records, "--target", "llvm -num-cores=3")
    assert "measured on another machine" in elsewhere.out


def test_unknown_sizes_are_not_measured(tvmext: Call, tiny: Path, tmp_path: Path) -> None:
    result = tvmext("tune", tiny, "--records", tmp_path / "r.jsonl", *HERE)
    assert result.code == 0, result.err
    assert "--dim binds them" in result.out


def test_mistakes(tvmext: Call, tiny: Path, tmp_path: Path) -> None:
    gpu = tvmext("tune", tiny, "--records", tmp_path / "r", "--target", "cuda", "--arch", "sm_80")
    assert gpu.code == 2 and "on the CPU of this machine" in gpu.err
    nowhere = tvmext("tune", tiny, "--records", tmp_path / "none" / "r.jsonl")
    assert nowhere.code == 2 and "its folder does not exist" in nowhere.err
    kept = tiny.read_bytes()
    model = tvmext("tune", tiny, "--records", tiny, *HERE)
    assert model.code == 2 and "something else than records" in model.err
    assert tiny.read_bytes() == kept
    missing = tvmext("compile", tiny, "-o", tmp_path / "a.so", "--records", tmp_path / "none.jsonl")
    assert missing.code == 2 and "no such file" in missing.err
