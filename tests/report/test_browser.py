"""The pages in a real browser: light and dark, on a screen and on a phone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dpap.report import write_comparison, write_report, write_side_by_side
from report.test_comparison import EPOCHS, RESULTS, write
from support.browser import BROWSER, look_at

FIT_A_PHONE = {"Costs", "Differences of the configurations"}
"""Tables that need not scroll even there."""


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
def test_pages_in_a_browser(twins: Path, make_run: Callable[..., Path], tmp_path: Path) -> None:
    other = make_run("a-run-with-a-name-that-is-long", epochs=5)
    (other / "config.yaml").write_text("network:\n  layers: 15C3-AvgPool2-40C3-AvgPool2-300FC-10FC\n")
    comparison = tmp_path / "comparison"
    comparison.mkdir()
    pages = [
        write_report(twins),
        write_side_by_side([twins, other], tmp_path / "side-by-side"),
        write_comparison(write(comparison, RESULTS, EPOCHS)),
    ]
    views, console = look_at(pages, tmp_path)
    assert console == []
    assert len(views) == 4 * len(pages)
    for view in views:
        assert view["dark"] == (view["scheme"] == "dark")
        assert view["overflow"] <= 0 and view["outside"] == [], view
        assert view["figures"] and view["unnamed"] == 0, view
        assert view["pale"] == [], view
        assert view["tables"], view
        for name, hidden, reachable in view["tables"]:
            assert reachable, name
            assert hidden <= 0 or (view["width"] == 390 and name not in FIT_A_PHONE), (name, hidden, view)
