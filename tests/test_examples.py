"""Every command that is documented is understood; with ``-m slow``, every one runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from onnx import helper

from tests.cli import networks
from tests.examples import ROOT, Example, examples
from tools.reference.__main__ import PAGE, page
from tvmext.cli import main, tvmext
from tvmext.cli.session import Session

OURS = [one for one in examples() if one.words[0] == "tvmext"]


def once() -> list[Example]:
    """Each command where it stands first."""
    found: dict[str, Example] = {}
    for one in OURS:
        found.setdefault(one.text, one)
    return list(found.values())


def test_examples_are_found() -> None:
    assert len(OURS) > 50
    assert {one.words[1] for one in OURS} == set(tvmext.commands)


@pytest.mark.parametrize("example", OURS, ids=str)
def test_verbs_understand_their_examples(example: Example) -> None:
    _, name, *arguments = example.words
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    tvmext.commands[name].make_context(name, arguments, obj=Session(()))


def test_the_reference_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tools.reference"


@pytest.mark.parametrize("verb", tvmext.commands.values(), ids=lambda verb: verb.name)
def test_help_says_everything(verb: click.Command) -> None:
    assert verb.short_help and verb.help and "Examples:\n" in (verb.epilog or "")
    for option in verb.params:
        if isinstance(option, click.Option):
            assert option.help and option.help.rstrip().endswith((".", "]")), option.name


def test_flags_of_one_name_are_alike() -> None:
    """A flag takes the same kind of value everywhere, and has one short form at the most."""
    kinds: dict[str, set[str]] = {}
    for verb in tvmext.commands.values():
        for option in verb.params:
            if isinstance(option, click.Option) and option.name != "output":
                for flag in option.opts:
                    if flag.startswith("--"):
                        kinds.setdefault(flag, set()).add(option.type.name)
    assert {flag: names for flag, names in kinds.items() if len(names) > 1} == {}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", shell])
    script = capsys.readouterr().out
    assert "_TVMEXT_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_a_shell_asks_for_completions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("TVMEXT_COMPLETE", "bash_complete"),):
        monkeypatch.setenv(f"_{name}", value)
    monkeypatch.setenv("COMP_WORDS", "tvmext verify --bis")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == ["plain,--bisect-passes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small stand-ins for the models, libraries and arrays that examples name."""
    path = tmp_path_factory.mktemp("examples")
    sequences = networks.model(
        [helper.make_node("Softmax", ["x"], ["y"], name="scores")],
        {"x": ["batch", "seq", 8]},
        {"y": ["batch", "seq", 8]},
    )
    cache = networks.model(
        [
            helper.make_node("Concat", ["kept", "x"], ["all"], axis=1),
            helper.make_node("Softmax", ["all"], ["y"]),
        ],
        {"x": ["batch", "seq", 8], "kept": ["batch", "past", 8]},
        {"y": ["batch", "past + seq", 8]},
    )
    linear = networks.linear()
    nets = {"bert": sequences, "gpt2": cache, "swin": networks.moving()}
    for name, net in {"model": linear, "resnet50": linear, **nets}.items():
        (path / f"{name}.onnx").write_bytes(net.SerializeToString())
    np.savez(path / "photos.npz", x=np.ones((2, 4), np.float32))
    (path / "tvmext").write_text(f'#!/bin/sh\nexec {sys.executable} -m tvmext "$@"\n')
    (path / "tvmext").chmod(0o755)
    for name in ("bert", "model", "resnet50"):
        command = ["compile", f"{name}.onnx", "-o", f"{name}.so"]
        subprocess.run([sys.executable, "-m", "tvmext", *command], cwd=path, check=True)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("example", once(), ids=str)
def test_examples_run(
    example: Example,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As they stand there, on stand-ins."""
    home = folder / "home"
    for made in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"):
        (home / made).mkdir(parents=True, exist_ok=True)
    shape = (2, 4) if example.place == "README.md" else (2, 128, 8)
    np.savez(folder / "inputs.npz", x=np.ones(shape, np.float32))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(folder)
    arguments = [os.path.expanduser(word) for word in example.words[1:]]
    into = None
    if ">" in arguments:
        *arguments, _, into = arguments
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capfd.readouterr()
    if into:
        Path(into).write_text(out)
    if example.error:
        assert ended.value.code == 2 and example.error in err
    elif arguments[0] == "reduce":
        assert ended.value.code == 2 and "does not fail" in err, "stand-ins are sound"
    else:
        assert ended.value.code == 0, err
