"""The table of plans: greedy beside exact, and what differs between fixed and free sizes."""

from __future__ import annotations

from typing import Any

from tools.movement import plans


def row(mode: str, decisions: list[Any], components: list[Any]) -> dict[str, Any]:
    seconds = {"VirtualTensors": 0.5, "JoinLoaders": 0.25}
    figures = {"components": components, "decisions": decisions, "seconds": seconds}
    return {"network": "a", "mode": mode, "exit_code": 0} | figures


def component(cycles: float, greedy: float, exact: bool = True) -> dict[str, Any]:
    return {"tensors": 2, "exact": exact, "cycles": cycles, "greedy": greedy}


def test_gaps_are_those_of_exact_decisions() -> None:
    components = [component(10, 10), component(10, 12), component(5, 5, exact=False)]
    text = plans.table([row("static", [[["concat"], ""], [["pad"], "priced"]], components)])
    assert "| a | static | 2 | 1 | 3 | 2 | 2 | 1 | 10.0 % | 20.0 % | 0.75 |" in text
    assert "3 components, 2 decided exactly; greedy as good in 50.0 %" in text
    assert "dearer by 10.00 % on average and 20.0 % at worst" in text


def test_differences_between_modes() -> None:
    static = row("static", [[["pad"], "priced: 1"], [["concat"], ""], [["take"], ""]], [])
    dynamic = row("dynamic", [[["pad"], ""], [["take"], ""], [["full"], "no"]], [])
    assert plans.differences(static, dynamic) == [
        "written only if static: pad: priced: 1",
        "only static: concat",
        "only dynamic: full",
    ]
    assert "The same plan with fixed and free sizes: 0 of 1." in plans.compared([static, dynamic])


def test_what_is_found_of_a_network() -> None:
    found = plans.planned("vtc_shufflenet_unit", "static")
    assert [names for names, _ in found["decisions"]] == [
        ["permute_dims"],
        ["permute_dims", "reshape"],
    ]
    assert [one["exact"] for one in found["components"]] == [True, True]
