"""A page in a real browser without a window, as wide as a screen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
needs_browser = pytest.mark.skipif(
    not BROWSER, reason=f"needs a browser: none of {', '.join(BROWSERS)} is on the path"
)
FRAME = """<iframe id=f src=page.html style="width:WIDTHpx;height:800px;border:0"></iframe><script>
f.onload = () => {
  const page = f.contentDocument, parts = [...page.querySelectorAll("PARTS")];
  const widths = parts.map(each => Math.round(each.getBoundingClientRect().width));
  const told = document.createElement("pre");
  told.textContent = JSON.stringify([page.documentElement.scrollWidth, widths]);
  document.body.append(told);
};</script>"""


@dataclass(frozen=True)
class Seen:
    """CSS pixels: how wide the page is, which scrolls sideways if that is more than the screen has,
    and how wide each of the parts is that were asked for."""

    width: int
    widths: list[int]


def seen(page: str, parts: str, folder: Path, width: int) -> Seen:
    """A page as a screen of that width shows it; `parts` is a CSS selector."""
    (folder / "page.html").write_text(page)
    frame = folder / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)).replace("PARTS", parts))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-web-security"]
    place = [f"--user-data-dir={folder}/user", "--virtual-time-budget=2000", "--dump-dom"]
    command = [str(BROWSER), *options, "--allow-file-access-from-files", *place, f"file://{frame}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    told = re.search(r"<pre>(.+?)</pre>", done.stdout)
    assert told, done.stderr[-500:]
    return Seen(*json.loads(unescape(told[1])))
