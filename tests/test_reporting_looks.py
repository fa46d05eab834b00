"""How looks, exact claims and needs are shown, and that `verify` finds a verdict that the records do not give."""

import io
import re
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from reporting_factory import claim, failed
from scipy import stats
from test_reporting_verdicts import EIGHT, FIVE, REFERENCE, SUBJECT, judged, look_records, one, records_of, run

from replications.reporting import forest, formats, site, statistics, tables, terminal
from replications.reporting.verify_claims import claims_again


def finder(records):
    def find(address: str, seed: int):
        record = records.runs.get(address, {}).get(seed)
        return record and record.model_dump(mode="json")

    return find


def many():
    """Records of eight seeds, one failed late on one side, one on both, with sampled and exact claims."""
    records = look_records(EIGHT)
    for address in ("cosface/cosface", "normface/normface"):
        paper, method = address.split("/")
        for seed in range(8):
            of = run(SUBJECT, seed, 95.0 - seed % 3)
            spec = of.spec.model_copy(update={"paper": paper, "method": method})
            records.runs.setdefault(address, {})[seed] = of.model_copy(update={"spec": spec})
    records.runs["cosface/cosface"][6] = failed("cosface/cosface", 6)
    records.runs["cosface/cosface"][1] = failed("cosface/cosface", 1)
    records.runs["normface/normface"][1] = failed("normface/normface", 1)
    claims = [
        claim("C1", "S.", SUBJECT, REFERENCE, smallest_effect=0.5),
        claim("C2", "S.", SUBJECT, REFERENCE, direction="equal", smallest_effect=4.0),
        claim("C3", "S.", SUBJECT, REFERENCE, effect="ratio", smallest_effect=0.001),
        claim("C4", "S.", "cosface/cosface", REFERENCE, direction="less"),
        claim("C5", "S.", "cosface/cosface", "normface/normface"),
        claim("C6", "S.", SUBJECT, REFERENCE, evidence="exact", smallest_effect=0.1),
        claim("C7", "S.", SUBJECT, expected=94.0, direction="equal", evidence="exact", smallest_effect=9),
        claim("C8", "S.", SUBJECT, expected=90.0, direction="less"),
    ]
    return records, judged(records, *claims)


def test_verify_finds_nothing_in_what_the_records_give():
    records, verdicts = many()
    assert {v.adjusted for v in verdicts} == {"reproduced", "contradicted", "inconclusive"}
    assert [v.evidence for v in verdicts].count("exact") == 2 and verdicts[3].failed_seeds == (1, 6)
    assert list(claims_again(finder(records), verdicts)) == []


def test_claims_whose_rows_have_not_been_run_count_in_the_family():
    """Else a verdict could be lost when another claim's rows are run."""
    own = claim("C1", "S.", SUBJECT, REFERENCE, smallest_effect=0.5)
    others = [
        claim("C2", "S.", "cosface/cosface", REFERENCE),  # its row is not run
        claim("C3", "S.", "cosface/cosface", REFERENCE, evidence="exact"),
        claim("C4", "S.", "cosface/cosface", REFERENCE, tiers=("paper",)),
    ]
    records = look_records(FIVE)
    alone, (found, *rest) = judged(records, own)[0], judged(records, own, *others)
    assert [v.adjusted for v in rest] == ["not tested"] * 3
    assert (alone.family, found.family) == (1, 2) and found.p == alone.p
    assert found.p_holm == pytest.approx(2 * alone.p)
    assert list(claims_again(finder(records), [found, *rest])) == []


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("name", ["effect", "p", "p_against", "p_holm", "q", "adjusted", "raw"])
def test_verify_names_each_number_and_word_that_is_not_theirs(place, name):
    records, verdicts = many()
    own = verdicts[place]
    if name in ("adjusted", "raw"):
        value = "contradicted" if getattr(own, name) == "reproduced" else "reproduced"
    else:
        value = (getattr(own, name) or 0.0) / 2 + 0.0011
    if name in ("effect", "p", "p_against", "p_holm", "q") and own.p is None:
        return
    if (name, own.effect_kind) == ("effect", "ratio"):
        value = own.effect * 1.01
    verdicts[place] = own.model_copy(update={name: value})
    told = list(claims_again(finder(records), verdicts))
    if name == "adjusted" and own.evidence == "exact":
        assert not told, "of an exact claim the raw word is checked; the files are compared as well"
    else:
        assert any(own.address in line for line in told)


def test_verify_divides_by_the_weights_itself(monkeypatch):
    records, _ = many()
    monkeypatch.setattr(statistics, "sequential", lambda p, weights=None: np.minimum.accumulate(p, -1))
    told = judged(records, claim("C1", "S.", SUBJECT, REFERENCE, smallest_effect=0.5))
    assert any(" p: " in line for line in claims_again(finder(records), told))


def test_verify_looks_at_no_effect_at_all_too():
    records = look_records([0.0] * 3)
    told = one(records)
    assert told.adjusted == "contradicted" and list(claims_again(finder(records), [told])) == []
    records.runs[SUBJECT][1].metrics["accuracy"] += 0.1
    assert len(list(claims_again(finder(records), [told]))) == 1


# ------------------------------------------------------------------ what is shown


def card(v) -> dict:
    return site._card(v, {}, {})


def test_a_card_tells_look_waiting_seeds_and_need():
    told = one(look_records([1.5, 0.6, 1.1, 0.9]), smallest_effect=0.2)
    facts = dict(card(told)["facts"])
    assert facts["Evidence"].startswith("3 seeds, the first look: effect and interval are of these; p ")
    assert facts["Not used yet"] == "seed 3 waits for the second look at 5 (+0.90)"
    assert facts["Would need"].startswith("5 seeds (the second look)")
    early = one(look_records([1.0, 1.1, 0.9, 0.2, -0.9]))
    assert dict(card(early)["facts"])["Decided"] == "at the first look (3 seeds)"


def test_an_exact_claim_is_labelled_wherever_it_is_shown():
    exact = one(look_records([1.0, 1.1]), evidence="exact")
    assert dict(card(exact)["facts"])["Evidence"] == "2 seeds, checked, not sampled"
    table = tables.claims_table([exact], "mini", True)
    cells = dict(zip([c.key for c in table.columns], table.sections[0][1][0][1], strict=True))
    assert cells["n"].text == "2 seeds, checked, not sampled" and cells["needed"].text == "–"
    texts = [text.get_text() for text in forest.forest_plot([exact]).axes[0].texts]
    assert any(text.endswith("reproduced, exact") for text in texts)
    assert "exact" in formats.claims_csv([exact], True)


@pytest.mark.parametrize("effect", ["difference", "ratio"])
def test_a_forest_plot_of_nothing_but_the_null_has_a_scale(effect):
    exact = one(look_records([0.0, 0.0]), evidence="exact", smallest_effect=0.0, effect=effect, direction="equal")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = forest.forest_plot([exact]).axes[0].get_xlim()
    assert low < (1 if effect == "ratio" else 0) < high


@pytest.mark.parametrize("lines", [2, 3, 5])
def test_no_label_of_the_forest_plot_reaches_into_the_next(lines):
    verdicts = [one(look_records([1.0, 1.1])), one(look_records([0.9, 1.2])), one(look_records([1.0, 1.3]))]
    figure = forest.forest_plot(verdicts, lambda v: "\n".join(["a line"] * lines))
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))


def test_the_terminal_sums_up_what_is_undecided():
    undecided = judged(
        look_records([1.5, 0.6, 1.1]),
        *(claim(f"C{i}", "S.", SUBJECT, REFERENCE, smallest_effect=0.1) for i in range(3)),
        claim("C9", "S.", SUBJECT, REFERENCE, smallest_effect=9.0, direction="equal"),
    )
    stream = io.StringIO()
    terminal.print_report([], undecided, [], [], stream=stream, width=120)
    last = stream.getvalue().strip().splitlines()[-1]
    assert re.match(r"\d claims undecided: \d need 8 seeds \(\d+(\.\d)? core-minutes more\)", last), last


def test_the_documented_looks_are_those_of_the_tests():
    text = Path("docs/statistics.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| least mean effect"))
    shown = [float(cell) for cell in row.split("|")[2:6]]
    looks = ((3, 0.1), (5, 0.4), (8, 0.3), (12, 0.2))
    assert shown == [round(stats.t.isf(0.025 * w, n - 1) / n**0.5, 2) for n, w in looks]
    cells = [[cell.text for cell in cells] for _, cells in site.power_table().sections[0][1]]
    assert [row[2] for row in cells] == [f"{value:.2f} SD" for value in shown]


def test_folds_have_one_look_with_all_of_the_five_per_cent():
    folds = [58.0, 61.0, 60.5, 59.0, 62.0, 60.0, 57.5, 61.5, 60.0, 60.5]
    records = look_records([0.0] * 5, [60.0] * 5)
    for seed, of in records.runs[SUBJECT].items():
        records.runs[SUBJECT][seed] = of.model_copy(update={"groups": {"accuracy": folds}})
    told = one(records, reference=None, expected=60.0, direction="equal", smallest_effect=2.0)
    error = np.std(folds, ddof=1) * (1 / 10 + 1 / 9) ** 0.5
    assert told.p == pytest.approx(stats.t.cdf(-2.0 / error, 9)) and told.p_looks == (told.p,)
    assert (told.replication, told.n, told.needed) == ("folds", 10, None)


def test_the_second_column_is_over_all_papers_and_never_the_verdict():
    records = records_of([91.0, 92.9, 92.3, 94.1, 95.6], FIVE)
    told = judged(records, *(claim(f"C{i}", "S.", SUBJECT, REFERENCE, smallest_effect=0.1) for i in range(6)))
    assert {v.adjusted for v in told} == {"inconclusive"} and {v.by_share for v in told} == {"reproduced"}
    assert told[0].q == pytest.approx(told[0].p), "six equal p-values"
    assert one(look_records([1.0, -1.1, 0.6])).by_share == "inconclusive"
    assert one(look_records([1.0, 1.1]), evidence="exact").by_share == "–"
