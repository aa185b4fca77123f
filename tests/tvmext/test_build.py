"""The child process: its errors, crashes and kills become errors of the parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tvmext
from tests.tvmext.networks import network
from tvmext.build import CompileRequest, Progress, compile_in_child
from tvmext.errors import (
    InternalError,
    ModelError,
    OptionError,
    UnsupportedError,
    UnsupportedOp,
)
from tvmext.options import Options

ROOT = Path(__file__).parents[2]


@pytest.fixture
def request_(tmp_path: Path) -> CompileRequest:
    return CompileRequest(model="m.onnx", output=str(tmp_path / "out.so"), name="my model")


def run(request: CompileRequest, entry: str, on_progress=None, on_output=None) -> None:
    compile_in_child(request, on_progress, on_output, entry=f"tests.tvmext.entries:{entry}")


def left_behind(request: CompileRequest) -> list[Path]:
    return list(Path(request.output).parent.iterdir())


def test_a_request_survives_json() -> None:
    request = CompileRequest(
        model="m",
        output="o",
        target={"kind": "llvm", "mattr": ["+avx2"]},
        dims={"batch": 4, "seq": (1, 8, None)},
        options=Options(1, disabled_pass=("A", "B"), pass_config=(("x", True), ("y", 3))),
        trust=True,
        one_by_one=True,
    )
    assert CompileRequest.from_json(request.to_json()) == request


def test_a_request_takes_integers_of_any_kind_and_no_other_objects() -> None:
    request = CompileRequest("model.onnx", "model.so", dims={"batch": np.int64(4)})
    assert CompileRequest.from_json(request.to_json()).dims == {"batch": 4}
    with pytest.raises(OptionError, match="cannot be an argument"):
        CompileRequest("model.onnx", "model.so", dims={"batch": object()}).to_json()


def test_a_model_gives_the_same_library_every_time(tmp_path: Path) -> None:
    libraries = [tmp_path / "first.so", tmp_path / "second.so"]
    for library in libraries:
        tvmext.compile(network(), dims={"batch": 3}).save(library)
    first, second = (library.read_bytes() for library in libraries)
    assert first == second


def test_progress_and_printed_text_arrive(request_: CompileRequest) -> None:
    steps: list[Progress] = []
    printed: list[str] = []
    run(request_, "succeed", steps.append, printed.append)
    assert [step[:2] for step in steps] == [("load", "my model"), ("link", "")]
    assert 0 <= steps[0].seconds <= steps[1].seconds
    assert "printed on stdout" in "".join(printed)
    assert "printed on stderr" in "".join(printed)
    assert CompileRequest.from_json(Path(request_.output).read_text()) == request_


def test_errors_keep_their_class_message_and_hint(request_: CompileRequest) -> None:
    with pytest.raises(ModelError) as caught:
        run(request_, "raise_model_error")
    assert (caught.value.message, caught.value.hint) == ("the model is bad", "take another")
    assert "raise_model_error" in str(caught.value.__cause__)


def test_unsupported_operators_keep_their_list(request_: CompileRequest) -> None:
    with pytest.raises(UnsupportedError) as caught:
        run(request_, "raise_unsupported")
    assert caught.value.ops == (UnsupportedOp("Foo", "my.domain", 3, "node_7", "no idea"),)
    assert caught.value.hint == "wait"


def test_an_unexpected_exception_is_an_internal_error(request_: CompileRequest) -> None:
    with pytest.raises(InternalError, match=r"KeyError.*schedule.*fused_add") as caught:
        run(request_, "raise_unexpected")
    assert "report" in caught.value.hint


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("segfault", "crashed with SIGSEGV .*'schedule', function fused_add"),
        ("leave", "SystemExit: 3"),
        ("exit_at_once", "ended with code 9 .*'load'"),
        ("run_out_of_memory", "memory ran out .*'build', function big"),
        ("no_such_entry", "no_such_entry"),
    ],
)
def test_the_end_of_the_child_is_an_error(
    request_: CompileRequest, entry: str, message: str
) -> None:
    with pytest.raises(InternalError, match=message):
        run(request_, entry)
    assert left_behind(request_) == []


def test_what_a_crashed_child_printed_is_kept(request_: CompileRequest) -> None:
    with pytest.raises(InternalError) as caught:
        run(request_, "segfault")
    assert "a last word" in str(caught.value.__cause__)


def test_a_crash_in_code_generation_names_the_kernel(request_: CompileRequest) -> None:
    steps: list[Progress] = []
    with pytest.raises(InternalError, match=r"SIGABRT .*'build', function culprit"):
        run(request_, "crash_in_code_generation", steps.append)
    assert [step.detail for step in steps] == [
        "2 kernels",
        "function innocent",
        "function culprit",
    ]


def test_an_error_in_code_generation_names_the_kernel(request_: CompileRequest) -> None:
    with pytest.raises(InternalError, match=r"ValueError: bad kernel .*'build', function culprit"):
        run(request_, "fail_in_code_generation")


def test_a_child_that_ran_out_of_memory_is_not_started_again(request_: CompileRequest) -> None:
    steps: list[Progress] = []
    with pytest.raises(InternalError, match="memory ran out") as caught:
        run(request_, "run_out_of_memory", steps.append)
    assert len(steps) == 1
    assert "free some memory" in caught.value.hint


def test_an_interrupt_kills_the_child_and_its_helpers(request_: CompileRequest) -> None:
    pids: list[int] = []

    def interrupt(progress: Progress) -> None:
        pids.extend(map(int, progress.detail.split()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(request_, "hang", interrupt)
    assert len(pids) == 2
    assert all(is_gone(pid) for pid in pids)
    assert left_behind(request_) == []


PARENT = """
import sys
from tvmext.build import CompileRequest, compile_in_child
request = CompileRequest(model="m", output=sys.argv[1])
show = lambda progress: print(progress.detail, flush=True)
compile_in_child(request, show, entry="tests.tvmext.entries:hang")
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_child_goes_with_its_parent(request_: CompileRequest, signum: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, request_.output]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout
        pids = list(map(int, parent.stdout.readline().split()))
        assert Path(request_.output).exists()
        parent.send_signal(signum)
        parent.wait(30)
    assert len(pids) == 2
    assert all(is_gone(pid) for pid in pids)
    assert wait_for(lambda: left_behind(request_) == [])


def test_no_file_of_the_working_folder_is_imported(
    request_: CompileRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "folder"
    trap.mkdir()
    (trap / "json.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(trap)
    run(request_, "succeed")
    assert Path(request_.output).exists()


def is_gone(pid: int) -> bool:
    """Whether the process ended; a zombie that nobody reaped yet counts."""

    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    return wait_for(ended)


def wait_for(condition) -> bool:
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
