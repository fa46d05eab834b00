"""What was learned, in words, from the verdicts alone."""

import pytest
from reporting_factory import claim, papers
from test_reporting_verdicts import FIVE, REFERENCE, SUBJECT, judged, look_records

from replications.reporting import wording
from replications.reporting.learned import first_line, paragraphs


def verdicts():
    return judged(
        look_records(FIVE),
        claim("C1", "The margin helps.", SUBJECT, REFERENCE, smallest_effect=0.5),
        claim("C2", "It hurts.", SUBJECT, REFERENCE, direction="less", smallest_effect=0.5),
        claim("C3", "It helps on a million faces.", SUBJECT, REFERENCE, tiers=("paper",)),
        claim(
            "C4",
            "A row is always near 94.",
            SUBJECT,
            expected=94.0,
            direction="equal",
            evidence="exact",
            smallest_effect=99,
        ),
        claim("C5", "It beats CosFace.", SUBJECT, "cosface/cosface"),
        claim("C6", "It helps by a lot.", SUBJECT, REFERENCE, direction="equal", smallest_effect=3.0),
    )


def test_a_paper_is_told_in_words_and_numbers():
    found = verdicts()
    by_claim = {v.claim: v for v in found}
    assert [v.adjusted for v in found[:5]] == ["reproduced", "contradicted", "not tested", "reproduced", "not tested"]
    (told,) = paragraphs(found, papers()).values()
    c1 = by_claim["C1"]
    low, high = (f"{bound:+.2f}".replace("-", "−") for bound in c1.interval)
    text = " ".join(told)
    assert f"“The margin helps” (C1, {c1.effect:+.2f} points, 95 % interval [{low}, {high}])" in text
    assert "“A row is always near 94” (C4, checked, not sampled)" in text
    assert text.index("Held up") < text.index("Did not hold up: “It hurts” (C2")
    assert told[0].startswith("Tested on") and "5 seeds" in told[0]
    assert told[-1] == "Not tested here: C3, C5."


def test_what_needs_no_data_set_is_told_by_its_category():
    found = [
        v.model_copy(update={"data": (), "category": "eight Gaussians, 400 samples; real points reach: 0.1"})
        for v in verdicts()
    ]
    (told,) = paragraphs(found, papers()).values()
    assert told[0] == "Tested on eight Gaussians, 400 samples, 5 seeds."
    (told,) = paragraphs([v.model_copy(update={"category": ""}) for v in found], papers()).values()
    assert told[0].startswith("Held up")


def test_the_first_line_counts_every_claim_once():
    found = verdicts()
    line = first_line(found)
    decided = sum(v.adjusted in ("reproduced", "contradicted") for v in found)
    assert line.startswith(f"{decided} of 6 claims are decided, 1 of them exactly.")
    assert "1 claim cannot be tested in tier mini." in line and "1 claim not tested, for the reason" in line
    assert first_line([]) == ""


@pytest.mark.parametrize(
    ("adjusted", "direction", "kind", "interval", "told"),
    [
        ("reproduced", "greater", "difference", (-0.4, 3.5), True),
        ("reproduced", "greater", "difference", (0.1, 3.5), False),
        ("reproduced", "less", "difference", (-3.5, 0.1), True),
        ("reproduced", "less", "ratio", (0.4, 0.9), False),
        ("reproduced", "less", "ratio", (0.4, 1.1), True),
        ("contradicted", "greater", "difference", (-3.5, 0.4), False),
        ("contradicted", "greater", "difference", (-3.5, 0.6), True),
        ("contradicted", "less", "ratio", (0.7, 1.1), False),  # below 1 / 1.5 is ruled out
        ("contradicted", "less", "ratio", (0.64, 1.1), True),  # 1 / 1.5 is not, though 1 / exp(0.5) is
        ("contradicted", "less", "ratio", (0.6, 1.1), True),
        ("reproduced", "equal", "difference", (-0.4, 0.4), False),
        ("reproduced", "equal", "difference", (-0.4, 0.6), True),
        ("contradicted", "equal", "difference", (0.4, 0.9), True),
        ("contradicted", "equal", "difference", (0.6, 0.9), False),
        ("inconclusive", "greater", "difference", (-0.4, 3.5), False),
    ],
)
def test_a_verdict_of_an_earlier_look_says_so_where_the_interval_of_all_seeds_does_not_show_it(
    adjusted, direction, kind, interval, told
):
    v = verdicts()[0].model_copy(
        update={
            "adjusted": adjusted,
            "direction": direction,
            "effect_kind": kind,
            "interval": interval,
            "smallest_effect": 0.5,
            "reached": 2,
            "looks": 4,
        }
    )
    assert wording.earlier(v) == (", decided at 5 seeds" if told else "")
    assert wording.earlier(v.model_copy(update={"looks": 2})) == ""
