"""The page's overview: every claim is in it once, under its own verdict, and every link leads somewhere."""

from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from reporting_factory import DEVIATIONS, TASKS, describe_set, papers, write_results

from replications.reporting import drawing, report, summary

SECOND = "angle_regression"
TWO_TASKS = {**TASKS, SECOND: SimpleNamespace(**{**vars(TASKS["face_verification"]), "title": "Angle regression"})}


def of_two_tasks():
    """The made-up papers, one of which is of a second task."""
    found = papers()
    found["deepface"] = found["deepface"].model_copy(update={"task": SECOND})
    return found


class Page(HTMLParser):
    """Collects ids, links to pages, and the chips with their text and attributes."""

    def __init__(self, html: str):
        super().__init__()
        self.ids, self.links, self.chips = [], [], []
        self._chip = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        if "id" in told:
            self.ids.append(told["id"])
        if (tag == "a" and ".html" in told["href"]) or told.get("href", "").startswith("#"):
            self.links.append(told["href"])
        if tag == "a" and "chip" in told.get("class", "").split():
            self._chip = {**told, "text": ""}
            self.chips.append(self._chip)

    def handle_data(self, data):
        if self._chip is not None:
            self._chip["text"] += data

    def handle_endtag(self, tag):
        if tag == "a":
            self._chip = None


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "draw", lambda *args: {})
    write_results(tmp_path / "mini", pairs=40)
    report.build(
        tmp_path / "mini",
        "mini",
        of_two_tasks(),
        tasks=TWO_TASKS,
        deviations=DEVIATIONS,
        describe_set=describe_set,
        seeds=3,
    )
    return tmp_path / "mini"


def verdicts_of(results):
    return report.derive(results, "mini", of_two_tasks(), tasks=TWO_TASKS, seeds=3)[2]


def card_of(verdict):
    return f"{of_two_tasks()[verdict.paper].task}.html#claim-{verdict.paper}-{verdict.claim}"


def test_every_claim_is_a_chip_that_leads_to_its_card(results):
    page, verdicts = Page((results / "index.html").read_text()), verdicts_of(results)
    assert len({v.adjusted for v in verdicts}) > 2
    assert Counter(chip["href"] for chip in page.chips) == Counter(map(card_of, verdicts))
    chips = {chip["href"]: chip for chip in page.chips}
    for v in verdicts:
        chip = chips[card_of(v)]
        assert chip["title"].startswith(v.statement)
        assert chip["text"].split() == [v.claim, summary.SYMBOLS[v.adjusted], *v.adjusted.split()], (
            "not by colour alone"
        )
        assert v.adjusted.replace(" ", "-") in chip["class"].split()
    assert len(set(summary.SYMBOLS.values())) == len(summary.SYMBOLS)


def test_every_link_has_one_target(results):
    pages = {path.name: Page(path.read_text()) for path in results.glob("*.html")}
    assert set(pages) == {"index.html", *(f"{task}.html" for task in TWO_TASKS)}
    for name, page in pages.items():
        assert max(Counter(page.ids).values()) == 1
        for link in page.links:
            file, _, target = link.partition("#")
            assert file or target in page.ids
            if target and file:
                assert target in pages[file].ids, link
        assert set(pages) <= {link.partition("#")[0] for link in page.links}, f"{name} leads to all pages"


def test_tasks_and_papers_are_in_one_order_and_the_numbers_add_up(results):
    verdicts, known = verdicts_of(results), of_two_tasks()
    table = summary.summary_table(verdicts, known, TWO_TASKS)
    assert [title for title, _ in table.sections] == ["Face verification", "Angle regression"]
    rows = {key: [cell.value for cell in cells[1:]] for _, rows in table.sections for key, cells in rows}
    assert set(rows) == {v.paper for v in verdicts}
    assert [sum(column) for column in zip(*rows.values(), strict=True)] == list(summary.counts(verdicts).values())
    assert sum(map(sum, rows.values())) == len(verdicts)
