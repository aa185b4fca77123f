"""What a night shows: the summary and the dashboard, which a browser opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import needs_browser, seen
from tests.tools.nights import DEVICE, three_nights
from tools.nightly.dashboard import dashboard
from tools.nightly.history import History
from tools.nightly.judge import Alarm
from tools.nightly.overview import grouped
from tools.nightly.summary import summary


@pytest.fixture
def history(tmp_path: Path) -> History:
    return three_nights(tmp_path)


def test_the_summary_tells_all(history: History) -> None:
    text = summary(history, DEVICE)
    assert text.startswith("# 2026-11-21: something became worse")
    assert "- **slower: gemm, 1 case**, since ccc1234 Do it" in text
    assert "1 had no time and go first the next night</summary>\n\nzoo/bert <b> static\n" in text
    assert "| operators: gemm |     1 |           1.50 |  1.50 |" in text
    assert "+10.5 %" in text
    assert "- zoo/unet static: crashed: ended with -11" in text


def test_the_dashboard_needs_nothing_else(history: History) -> None:
    page = dashboard(history, DEVICE)
    assert "http" not in page.replace("http-equiv", "")
    assert "<script src" not in page and "<link" not in page
    assert "bert &lt;b&gt;" in page
    assert page.count('class="trend"') >= 4
    assert "slower: gemm, 1 case" in page
    assert 'class="spark"' not in page or "<path" in page


@needs_browser
def test_the_dashboard_fits_screens(history: History, tmp_path: Path) -> None:
    """Nothing but tables scrolls sideways, and every plot has a size."""
    for found in seen(dashboard(history, DEVICE), ".trend", tmp_path):
        assert found.width <= found.screen and not found.cut
        assert len(found.parts) >= 4 and min(found.parts) > 100


def test_alarms_are_grouped_by_family() -> None:
    found = [Alarm("a", "slower", "gemm", ""), Alarm("b", "wrong", "wrong", "")]
    found += [Alarm("c", "slower", "gemm", "", "x"), Alarm("d", "slower", "conv", "")]
    groups = grouped(found)
    assert groups[0].title == "slower: gemm, 2 cases"
    assert "wrong, 1 case" in [group.title for group in groups]
    assert groups[0].culprits == ["x"]
