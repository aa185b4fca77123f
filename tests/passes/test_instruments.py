"""Watch: passes are reported as they begin, and modules printed where asked to."""

from __future__ import annotations

import pytest
import tvm
from tvm.relax import transform

from tests.passes.modules import build
from tvmext.errors import OptionError
from tvmext.options import Options
from tvmext.passes.instruments import Watch

PASSES = [transform.CanonicalizeBindings(), transform.DeadCodeElimination()]
NAMES = [each.info.name for each in PASSES]


def watched(options: Options) -> list[str]:
    """The passes that are reported."""
    reported: list[str] = []
    with tvm.transform.PassContext(instruments=[Watch(PASSES, options, reported.append)]):
        mod = build([("x", (2,), "float32")], lambda _, x: x)
        for each in (*PASSES, transform.ToNonDataflow()):
            mod = each(mod)
    return reported


def test_passes_of_the_pipeline_are_reported_in_order() -> None:
    assert watched(Options()) == NAMES


def test_modules_are_printed_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    watched(Options(print_ir_before=(NAMES[0],), print_ir_after=(NAMES[1],)))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("# ")]
    titles = [line for line in lines if "before" in line or "after" in line]
    assert titles == [f"# before {NAMES[0]}", f"# after {NAMES[1]}"]


def test_all_is_every_pass_of_the_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    watched(Options(print_ir_after=("all",)))
    out = capsys.readouterr().out
    assert all(f"# after {name}" in out for name in NAMES)
    assert "ToNonDataflow" not in out


@pytest.mark.parametrize("field", ["disabled_pass", "print_ir_before", "print_ir_after"])
def test_a_pass_that_is_not_there_is_the_users_mistake(field: str) -> None:
    with pytest.raises(OptionError, match="no pass is named 'Nonsense'") as error:
        watched(Options(**{field: ("Nonsense",)}))
    assert NAMES[0] in str(error.value)
