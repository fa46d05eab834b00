"""The page for readers with a keyboard or a screen reader, as far as its text tells it; colours by their contrast."""

import itertools
import re
from html.parser import HTMLParser

import pytest
from reporting_factory import DEVIATIONS, TASKS, describe_set, papers, write_results

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
def elements(tmp_path_factory):
    results = tmp_path_factory.mktemp("results") / "mini"
    write_results(results, seeds=2, pairs=60)
    shown = {
        "claims": [site.Plot("plots/claims.svg", "effects", "Effects.")],
        "face_verification": [site.Plot("plots/one.svg", 'a "line" & <more>', "A line.")],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "draw", lambda *args: shown)
        report.build(results, "mini", papers(), tasks=TASKS, deviations=DEVIATIONS, describe_set=describe_set, seeds=2)
    return Elements((results / "index.html").read_text()).found


def test_what_scrolls_can_be_reached_with_the_keyboard(elements):
    scrolling = set(re.findall(r"^ *([a-z.]+) \{[^}]*overflow-x: auto", STYLE, re.M))
    assert scrolling == {".scroll", "pre", "figure"}, "another element scrolls: look after it below"
    regions = [a for tag, a, _ in elements if tag == "pre" or a.get("class") == "scroll"]
    assert len(regions) > 5
    for attributes in regions:
        assert attributes["tabindex"] == "0" and attributes["role"] == "region" and attributes["aria-label"]
    figures = [inside for tag, _, inside in elements if tag == "img"]
    assert len(figures) == 2 and all(inside[-2:] == ("figure", "a") for inside in figures), (
        "a picture is a link to itself"
    )


def test_pictures_and_tables_are_told_in_words(elements):
    assert [a["alt"] for tag, a, _ in elements if tag == "img"] == ["effects", 'a "line" & <more>']
    assert all(a["aria-label"] for tag, a, _ in elements if tag == "svg")
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
