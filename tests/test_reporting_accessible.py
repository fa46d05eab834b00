"""The page for readers with a keyboard or a screen reader, as far as its text tells it; colours by their contrast."""

import itertools
import re
from html.parser import HTMLParser

import pytest
from published import PUBLISHED
from reporting_factory import GIVEN, papers, write_results

from replications.reporting import drawing, report, site

VOID = {"meta", "link", "img", "br", "wbr", "hr", "input", "rect", "line", "circle", "path"}
STYLE = (site.TEMPLATES / "style.css").read_text()


class Elements(HTMLParser):
    """Every element with its attributes and those that it is in."""

    def __init__(self, text):
        super().__init__()
        self.found, self._open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes), tuple(self._open)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The elements of the tier's page, of a task's, and of the page on all publications."""
    results = tmp_path_factory.mktemp("results") / "mini"
    write_results(results, seeds=2, pairs=60)
    shown = {
        "claims": [site.Plot("plots/claims.svg", "effects", "Effects.")],
        "face_verification": [site.Plot("plots/one.svg", 'a "line" & <more>', "A line.")],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "draw", lambda *args: shown)
        report.build(results, "mini", papers(), **GIVEN, seeds=2)
    files = {"tier": results / "index.html", "task": results / "face_verification.html"}
    files["all"] = PUBLISHED / "index.html"
    return {name: Elements(path.read_text(encoding="utf-8")).found for name, path in files.items()}


@pytest.fixture(params=["tier", "task", "all"])
def elements(request, pages):
    return pages[request.param]


def test_what_scrolls_can_be_reached_with_the_keyboard(pages):
    scrolling = set(re.findall(r"^ *([a-z.]+) \{[^}]*overflow-x: auto", STYLE, re.M))
    assert scrolling == {".scroll", "pre", "figure"}, "another element scrolls: look after it below"
    for name, count in (("tier", 6), ("task", 2), ("all", 2)):
        regions = [a for tag, a, _ in pages[name] if tag == "pre" or a.get("class") == "scroll"]
        assert len(regions) == count
        for attributes in regions:
            assert attributes["tabindex"] == "0" and attributes["role"] == "region" and attributes["aria-label"]
        figures = [inside for tag, _, inside in pages[name] if tag == "img"]
        assert len(figures) == (name != "all")
        assert all(inside[-2:] == ("figure", "a") for inside in figures), "a picture is a link to itself"


def test_pictures_are_told_in_words(pages):
    told = {name: [a["alt"] for tag, a, _ in found if tag == "img"] for name, found in pages.items()}
    assert told == {"tier": ["effects"], "task": ['a "line" & <more>'], "all": []}


def test_tables_and_fields_are_told_in_words(elements):
    assert all(a["aria-label"] for tag, a, _ in elements if tag == "svg")
    assert all("label" in inside for tag, _, inside in elements if tag == "input")
    for tag, attributes, inside in elements:
        if tag == "th":
            where = {"col"} if "thead" in inside else {"row", "rowgroup"}
            assert attributes["scope"] in where, attributes
    assert next(a for tag, a, _ in elements if tag == "html")["lang"] == "en"


def test_headings_and_names_are_in_order(elements):
    levels = [int(tag[1]) for tag, _, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    names = [a["id"] for _, a, _ in elements if "id" in a]
    assert len(names) == len(set(names))
    targets = [a["href"][1:] for tag, a, _ in elements if tag == "a" and a.get("href", "").startswith("#")]
    assert targets and set(targets) <= set(names)
    assert {tag for tag, _, _ in elements} >= {"main", "header", "nav", "footer"}
    assert all(a["aria-label"] for tag, a, _ in elements if tag == "nav")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_stands_out_from_what_is_behind_it(scheme):
    """WCAG 2.1, 1.4.3: 4.5 to 1."""
    block = re.findall(r":root \{(.*?)\}", STYLE, re.S)[scheme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
    texts = [name for name in colours if name not in ("page", "panel", "line", "tint")]
    assert len(texts) == 8
    for text, behind in itertools.product(texts, ("page", "panel")):
        bright, dark = sorted((luminance(colours[text]), luminance(colours[behind])), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (text, behind)
