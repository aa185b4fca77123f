"""A page in a real browser without a window, on a phone and on a laptop."""

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
SCREENS = (390, 1280)
"""A phone and a laptop, in CSS pixels."""

FRAMES = """<body></body><script>
const told = [];
for (const wide of SCREENS) {
  const frame = document.createElement("iframe");
  frame.style = `width:${wide}px;height:800px;border:0`;
  frame.src = "page.html";
  frame.onload = () => {
    const page = frame.contentDocument, parts = [...page.querySelectorAll("PARTS")];
    const widths = parts.map(each => Math.round(each.getBoundingClientRect().width));
    const cut = [...page.querySelectorAll("body *")].filter(each =>
      each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).overflowX === "hidden");
    const names = cut.map(each => each.className);
    told.push([wide, page.documentElement.scrollWidth, widths, names]);
    if (told.length < SCREENS.length) return;
    const shown = document.createElement("pre");
    shown.textContent = JSON.stringify(told);
    document.body.append(shown);
  };
  document.body.append(frame);
}</script>"""


@dataclass(frozen=True)
class Seen:
    """CSS pixels: the screen, the page, which scrolls sideways if it is wider, and its parts; `cut`
    are the classes of what hides a part of its content, where nobody gets."""

    screen: int
    width: int
    parts: list[int]
    cut: list[str]


def seen(page: str, parts: str, folder: Path) -> list[Seen]:
    """A page on each of `SCREENS`, and those of its parts that a CSS selector names."""
    (folder / "page.html").write_text(page)
    frame = folder / "frame.html"
    frame.write_text(FRAMES.replace("SCREENS", str(list(SCREENS))).replace("PARTS", parts))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-web-security"]
    place = [f"--user-data-dir={folder}/user", "--virtual-time-budget=2000", "--dump-dom"]
    command = [str(BROWSER), *options, "--allow-file-access-from-files", *place, f"file://{frame}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    told = re.search(r"<pre>(.+?)</pre>", done.stdout)
    assert told, done.stderr[-500:]
    return [Seen(*each) for each in sorted(json.loads(unescape(told[1])))]
