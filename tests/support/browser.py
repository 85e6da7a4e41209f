"""Pages in a real browser, without a screen: Debian's chromium, where it is installed."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

LOOK = """<!doctype html><meta charset="utf-8"><body><script>
const pages = PAGES, seen = [], wanted = [];
for (const page of pages) for (const scheme of ["light", "dark"]) for (const width of [1280, 390])
  wanted.push([page, scheme, width]);
const contrast = (one, other) => {
  const light = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
};
for (const [page, scheme, width] of wanted) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 900px; border: 0; color-scheme: ${scheme}`;
  frame.onload = () => {
    const inner = frame.contentDocument, style = element => frame.contentWindow.getComputedStyle(element);
    const all = selector => [...inner.querySelectorAll(selector)];
    all("details").forEach(each => each.open = true);
    const behind = element => {
      while (element && /, 0\\)$|transparent/.test(style(element).backgroundColor)) element = element.parentElement;
      return element ? style(element).backgroundColor : "rgb(255, 255, 255)";
    };
    const texts = all("h1, h2, p, small, dt, dd, th, td, summary, figcaption, footer, code, svg text");
    seen.push({
      page, scheme, width,
      dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
      overflow: inner.documentElement.scrollWidth - inner.documentElement.clientWidth,
      outside: all("main *").filter(each => !each.closest(".scroll, svg"))
        .filter(each => each.getBoundingClientRect().right > inner.documentElement.clientWidth + 0.5)
        .map(each => each.outerHTML.slice(0, 80)),
      tables: all("table").map(each => each.closest(".scroll")).map(each => each && [
        each.getAttribute("aria-label"), each.scrollWidth - each.clientWidth,
        each.tabIndex == 0 && each.getAttribute("role") == "region"]),
      unnamed: all("svg").filter(each => each.getAttribute("role") != "img" || !each.getAttribute("aria-label")).length,
      figures: all("svg").length,
      pale: texts.filter(each => each.textContent.trim())
        .filter(each => contrast(each.namespaceURI.includes("svg") ? style(each).fill : style(each).color,
                                 behind(each)) < 4.5)
        .map(each => each.outerHTML.slice(0, 80)),
    });
    if (seen.length == wanted.length) {
      const result = document.createElement("pre");
      result.id = "seen";
      result.textContent = JSON.stringify(seen);
      document.body.append(result);
    }
  };
  frame.src = page;
  document.body.append(frame);
}
</script>
"""


def look_at(pages: Sequence[Path], scratch: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """What a browser makes of each page, light and dark, on a screen and on a phone; and what it says on its console.

    One launch for all: each is a frame of that width and colour scheme.
    """
    assert BROWSER is not None
    look = scratch / "look.html"
    look.write_text(LOOK.replace("PAGES", json.dumps([page.resolve().as_uri() for page in pages])))
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            f"--user-data-dir={scratch / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=60000",
            "--dump-dom", look.as_uri(),
        ],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found.group(1))), console
