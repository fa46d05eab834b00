"""The page in a real browser: it shows, sorts, fits a phone, logs no error and asks for nothing from outside."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest
from published import PUBLISHED
from reporting_factory import GIVEN, papers, write_results

from replications.reporting import drawing, report, style
from replications.reporting.site import Plot

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
)
PROBE = """<script>addEventListener("load", () => {
  const button = document.querySelector("th.number button"), header = button?.closest("th");
  button?.click(); button?.click();
  parent.postMessage(JSON.stringify({
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    broken: [...document.images].filter((image) => !image.naturalWidth).length,
    images: document.images.length,
    requests: performance.getEntriesByType("resource").map((entry) => entry.name),
    sorted: header?.getAttribute("aria-sort") ?? null,
    rows: [...header?.closest("table").tBodies ?? []].map((body) => [...body.rows].filter(
      (row) => row.className !== "section").map((row) => row.cells[header.cellIndex].dataset.value)),
  }), "*");
});</script></body>"""
# A window has a least width; a frame can be as narrow as a phone.
FRAME = """<!doctype html><title>waiting</title>
<script>addEventListener("message", (event) => { document.title = event.data; });</script>
<iframe src="PAGE.probe.html" width="WIDTH" height="844" style="border: 0"></iframe>"""

PAGES = ("index", "face_verification", "published")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with one real plot, its page, and a copy of the page that tells what the browser saw."""
    results = tmp_path_factory.mktemp("results") / "mini"
    write_results(results, pairs=200)

    def draw(folder, *args):
        figure = style.Figure(figsize=(3, 2))
        figure.add_subplot().plot([0, 1], [0, 1])
        style.save(figure, folder / "plots", "one")
        one = [Plot("plots/one.svg", "a line", "A line.")]
        return {"claims": one, "face_verification": one}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "draw", draw)
        report.build(results, "mini", papers(), **GIVEN, seeds=3)
    shutil.copyfile(PUBLISHED / "index.html", results / "published.html")
    for name in PAGES:
        html = (results / f"{name}.html").read_text()
        (results / f"{name}.probe.html").write_text(html.replace("</body>", PROBE))
    return results


def browse(path, profile, *arguments: str) -> tuple[str, str]:
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *arguments, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("name", PAGES)
def test_in_a_browser(page, tmp_path, name, width):
    frame = page / f"frame{width}.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)).replace("PAGE", name))
    dom, console = browse(frame, tmp_path / "profile", "--window-size=1400,1000", "--dump-dom")
    assert console == "", "the console is silent"
    told = re.search(r"<title>(\{.*?\})</title>", dom)
    assert told, dom[:500]
    seen = json.loads(unescape(told.group(1)))
    assert seen["width"] == width
    assert seen["broken"] == 0 and seen["images"] == (name != "published")
    assert all(name.startswith("file:") for name in seen["requests"]), "nothing is asked of a network"
    assert seen["overflow"] <= 0, "the page itself does not scroll sideways: wide tables do, in their own frame"
    assert seen["sorted"] == "ascending"
    for rows in seen["rows"]:
        values = [float(value) for value in rows if value is not None]
        assert values == sorted(values)
        assert all(value is None for value in rows[len(values) :]), "rows without a number stay last"


def test_what_a_person_sees(page, tmp_path):
    from PIL import Image

    shot = tmp_path / "shot.png"
    browse(page / "index.html", tmp_path / "profile", "--window-size=1280,1600", f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB"), dtype=int)
    assert pixels.shape == (1600, 1280, 3)
    inked = (np.abs(pixels - pixels[0, 0]).sum(-1) > 60).mean()
    assert 0.02 < inked < 0.6, "text and cards, neither blank nor flooded"
    green = (pixels[..., 1] - pixels[..., 0] > 60).any()
    assert green, "a reproduced verdict is shown in its colour"


def test_the_table_of_publications_is_searched(page, tmp_path):
    """Every row with all of the words is shown, and no other. The page is that of the day: one row is named."""
    words = "arcface/arcface lfw-3folds accuracy"
    probe = """<script>addEventListener("load", () => {
      const input = document.querySelector("input[type=search]");
      input.value = "WORDS"; input.dispatchEvent(new Event("input"));
      document.title = JSON.stringify([...document.querySelectorAll("#measured tbody tr:not(.section)")].map((row) => ({
        text: [...row.cells].map((cell) => cell.textContent.trim()).join(" | "),
        heading: row.parentElement.querySelector(".section").textContent,
        shown: row.checkVisibility(),
      })));
    });</script></body>"""
    path = page / "searched.html"
    path.write_text((page / "published.html").read_text().replace("</body>", probe.replace("WORDS", words)))
    dom, console = browse(path, tmp_path / "profile", "--dump-dom")
    assert console == ""
    rows = json.loads(unescape(re.search("<title>(.*?)</title>", dom)[1]))
    asked = [all(word in f"{row['heading']} {row['text']}".lower() for word in words.split()) for row in rows]
    assert [row["shown"] for row in rows] == asked
    assert 0 < sum(asked) < len(rows)
    found = [row["text"] for row in rows if row["shown"]]
    assert any(
        text.startswith("arcface/arcface ArcFace (m = 0.5) | Accuracy (%) | ")
        and text.endswith(" | standard-lfw-3folds-cpu-small-budget")
        for text in found
    )
