"""``tvmext opt``: passes by name, in any order, on modules that may come back as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import networks
from tests.cli.conftest import Call
from tvmext import frontends, opt
from tvmext.errors import CheckFailed
from tvmext.options import Options
from tvmext.passes import named


def test_passes_are_listed_by_phase(tvmext: Call) -> None:
    listed = tvmext("opt", "--list-passes", "--json").json
    assert list(listed) == [
        *("normalise", "layout", "clean", "attention", "virtual-tensors"),
        *("kernels", "fuse", "schedule", "lower"),
    ]
    assert listed["fuse"][:2] == ["FuseOperators", "FuseTIR"]
    assert tvmext("opt", "--list-passes", "-O0", "--json").json["attention"] == []


def test_a_module_goes_through_files(tvmext: Call, tmp_path: Path) -> None:
    """As JSON with the weights inside, then as a program, which is run only where trusted."""
    model, first, second = (tmp_path / name for name in ("net.onnx", "net.json", "net.py"))
    model.write_bytes(networks.linear().SerializeToString())
    told = tvmext("opt", model, "--passes", "name-values", "-o", first, "--print-after-all")
    assert told.code == 0, told.err
    assert "# after NameValues" in told.err and told.out == ""
    assert "w" in frontends.load(first).params
    assert tvmext("opt", first, "--passes", "BindModel,kernels", "-o", second).code == 0
    assert "would be run" in tvmext("opt", second).err
    last = tvmext("opt", second, "--trust", "--passes", "fuse")
    assert "def fused_matmul_relu" in last.out
    assert "# after" not in last.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--passes", "frob"), 2, "no pass or phase is named 'frob'"),
        (("--passes", "clean", "--print-after", "FuseTIR"), 2, "no pass is named 'FuseTIR'"),
        (("-o", "out.txt"), 2, "neither .json nor .py"),
    ],
)
def test_mistakes(tvmext: Call, tiny: Path, arguments: tuple, code: int, message: str) -> None:
    result = tvmext("opt", tiny, *arguments)
    assert result.code == code
    assert message in result.err


def test_a_module_is_needed(tvmext: Call) -> None:
    assert "there is no MODEL" in tvmext("opt", "--passes", "clean").err


def test_a_pass_that_breaks_the_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import tvm
    from tvm import relax

    @tvm.transform.module_pass(opt_level=0, name="Break")
    class Break:
        """main returns a variable that nothing defines"""

        def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
            main = mod["main"]
            other = relax.Var("other", main.ret_ty)
            broken = relax.Function(main.params, relax.SeqExpr([], other), main.ret_ty)
            return tvm.IRModule({"main": broken.with_attr("global_symbol", "main")})

    @tvm.transform.module_pass(opt_level=0, name="Refuse")
    class Refuse:
        def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
            raise ValueError("not mine")

    monkeypatch.setattr(named, "chosen", lambda *_: [Break(), Refuse()])
    model = frontends.load(networks.linear().SerializeToString())
    with pytest.raises(CheckFailed, match="after Break the module is not well-formed"):
        opt.apply(model, [], "llvm", Options())
    with pytest.raises(CheckFailed, match="Refuse cannot be run on this module: not mine"):
        opt.apply(model, [], "llvm", Options(), check=False)


def test_json_is_json(tvmext: Call, tiny: Path) -> None:
    assert "nodes" in json.loads(tvmext("opt", tiny, "--json").out)
