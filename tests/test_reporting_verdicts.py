"""From records to verdicts: the rules, the reasons for not testing, and what is paired with what."""

import pytest
from reporting_factory import TASKS, claim, failed, papers, record

from replications.reporting import labels
from replications.reporting.load import Records
from replications.reporting.verdicts import Verdict, judge

SUBJECT, REFERENCE = "arcface/arcface", "arcface/softmax"
CATALOGUE = papers()


def run(address: str, seed: int, value: float, metric: str = "accuracy", **changes):
    """A finished record with one metric."""
    base = record(address, seed, pairs=20)[0]
    return base.model_copy(update={"metrics": {metric: value}, "groups": {}, **changes})


def records_of(subject: list[float], reference: list[float] | None, **changes) -> Records:
    runs = {SUBJECT: {seed: run(SUBJECT, seed, value, **changes) for seed, value in enumerate(subject)}}
    if reference is not None:
        runs[REFERENCE] = {seed: run(REFERENCE, seed, value, **changes) for seed, value in enumerate(reference)}
    return Records(tier="mini", runs=runs)


def judged(records: Records, *claims, result: bool = True) -> list[Verdict]:
    paper = CATALOGUE["arcface"].model_copy(update={"claims": claims})
    return judge(records, {"arcface": paper}, TASKS, result)


def one(records: Records, result: bool = True, reference: str | None = REFERENCE, **changes) -> Verdict:
    return judged(records, claim("C", "Statement.", SUBJECT, reference, **changes), result=result)[0]


BASE = [90.0, 91.0, 92.0]


@pytest.mark.parametrize(
    ("direction", "effects", "word"),
    [
        ("greater", [1.0, 1.1, 0.9], "reproduced"),
        ("greater", [0.10, 0.11, 0.12], "contradicted"),  # shown to be there, and shown to be below delta
        ("greater", [-1.0, -1.1, -0.9], "contradicted"),
        ("greater", [1.0, -1.1, 2.0], "inconclusive"),
        ("less", [-1.0, -1.1, -0.9], "reproduced"),
        ("less", [1.0, 1.1, 0.9], "contradicted"),
        ("equal", [0.1, -0.1, 0.05], "reproduced"),
        ("equal", [2.0, 2.1, 1.9], "contradicted"),
        ("equal", [-2.0, -2.1, -1.9], "contradicted"),
        ("equal", [0.5, -0.6, 0.2], "inconclusive"),
    ],
)
def test_rules(direction, effects, word):
    records = records_of([b + e for b, e in zip(BASE, effects, strict=True)], BASE)
    verdict = one(records, direction=direction, smallest_effect=0.5)
    assert (verdict.raw, verdict.adjusted, verdict.n) == (word, word, 3)
    assert verdict.effect == pytest.approx(sum(effects) / 3)
    assert verdict.values == pytest.approx(effects)


def test_effects_are_paired_by_seed():
    """Seeds differ by far more than methods: only pairing finds the effect."""
    records = records_of([80.5, 91.6, 70.4], [80.0, 91.0, 70.0])
    assert one(records, smallest_effect=0.1).adjusted == "reproduced"
    records.runs[REFERENCE][3] = run(REFERENCE, 3, 10.0)  # a seed without its partner
    assert one(records, smallest_effect=0.1).seeds == (0, 1, 2)


def test_an_expected_value_needs_no_reference():
    verdict = one(records_of([60.1, 59.8, 60.3], None), reference=None, expected=60.0, direction="equal")
    assert verdict.effect == pytest.approx(60.0667 - 60, abs=1e-3)


def test_metrics_of_the_two_sides_may_differ():
    records = records_of([1, 1, 1], None)
    for seed, (a, b) in enumerate([(95.0, 93.0), (95.5, 93.4), (94.8, 92.9)]):
        records.runs[SUBJECT][seed].metrics = {"accuracy": a, "accuracy_network": b}
    verdict = one(records, reference=SUBJECT, reference_metric="accuracy_network")
    assert verdict.effect == pytest.approx(2.0) and verdict.adjusted == "reproduced"


def test_a_ratio_is_judged_on_the_log_scale():
    records = records_of([110, 121, 133.1], [100, 110, 121.1])
    verdict = one(records, effect="ratio", smallest_effect=0.05)
    assert verdict.effect == pytest.approx(1.1, abs=1e-3) and verdict.adjusted == "reproduced"
    assert verdict.interval[0] * verdict.interval[1] == pytest.approx(verdict.effect**2)
    assert one(records, effect="ratio", smallest_effect=0.2).adjusted == "contradicted"
    upside_down = records_of([100, 110, 121.1], [110, 121, 133.1])
    assert one(upside_down, effect="ratio", smallest_effect=0.05, direction="less").adjusted == "reproduced"
    assert "above 0" in one(records_of([0, 1, 1], BASE), effect="ratio").reason


def test_seeds_that_agree_give_no_verdict():
    verdict = one(records_of([b + 1 for b in BASE], BASE))
    assert (verdict.raw, verdict.interval) == ("inconclusive", None)
    assert "agree" in verdict.reason


def test_folds_stand_in_where_nothing_varies_with_the_seed():
    folds = [58.0, 61.0, 60.5, 59.0, 62.0, 60.0, 57.5, 61.5, 60.0, 60.5]
    records = records_of([60.0] * 3, None, groups={"accuracy": folds})
    verdict = one(records, reference=None, expected=60.0, direction="equal", smallest_effect=3.0)
    assert (verdict.replication, verdict.n, verdict.adjusted) == ("folds", 10, "reproduced")
    sd = (sum((f - 60) ** 2 for f in folds) / 9) ** 0.5
    half = 2.26216 * sd * (1 / 10 + 1 / 9) ** 0.5  # Nadeau and Bengio: folds share their training parts
    assert verdict.interval == pytest.approx((-half, half), abs=1e-4)
    records.runs[SUBJECT][2].metrics["accuracy"] = 60.1  # as soon as a seed matters, seeds are the unit
    assert one(records, reference=None, expected=60.0, direction="equal").replication == "seeds"


# ------------------------------------------------------------------ not tested


def test_reasons_for_not_testing():
    records = records_of([91.0, 92.0, 93.1], BASE)
    assert "plumbing" in one(records, result=False).reason
    assert "only paper" in one(records, tiers=("paper",)).reason
    assert "no metric 'nosuch'" in one(records, metric="nosuch").reason
    absent = records_of([91.0, 92.0], None)
    assert one(absent).reason == f"no record of {REFERENCE}"
    absent.runs[REFERENCE] = {0: failed(REFERENCE, 0), 1: failed(REFERENCE, 1, reason="out of memory")}
    assert one(absent).reason == f"{REFERENCE} failed (diverged, out of memory)"
    absent.runs[REFERENCE] = {5: run(REFERENCE, 5, 90.0)}
    assert "share no finished seed" in one(absent).reason


def test_an_untested_effect_is_still_shown():
    records = records_of([91.0, 92.0], [90.0])
    records.runs[REFERENCE][1] = failed(REFERENCE, 1)
    verdict = one(records)
    assert (verdict.adjusted, verdict.effect, verdict.interval) == ("not tested", 1.0, None)
    assert verdict.reason == (f"1 paired seed, an interval needs at least 2; {REFERENCE} failed at seed 1 (diverged)")
    smoke = one(records_of([91.0, 92.0, 93.1], BASE), result=False)
    assert smoke.effect is not None and smoke.interval is not None and smoke.p is None and not smoke.result


def test_different_test_data_or_categories_do_not_compare():
    records = records_of([91.0, 92.0, 93.1], BASE)
    for seed, of in records.runs[REFERENCE].items():
        records.runs[REFERENCE][seed] = of.model_copy(update={"category": "another"})
    assert one(records).reason == "subject and reference differ in their category"
    records = records_of([91.0, 92.0, 93.1], BASE)
    for seed, of in records.runs[REFERENCE].items():
        spec = of.spec.model_copy(update={"data": {"train": "faces_mini", "test": "other"}})
        records.runs[REFERENCE][seed] = of.model_copy(update={"spec": spec})
    assert one(records).reason == "subject and reference differ in their test data"


def test_a_changed_set_up_compares_only_with_its_like():
    records = records_of([91.0, 92.0, 93.1], BASE)
    for address in (SUBJECT, REFERENCE):
        for seed, of in records.runs[address].items():
            records.runs[address][seed] = of.model_copy(
                update={
                    "spec": of.spec.model_copy(update={"changes": ("recipe.steps=3", f"options.width={len(address)}")})
                }
            )
        told = one(records)
        if address == SUBJECT:
            assert told.reason == "subject and reference differ in their category"
    assert told.category.endswith("changed set-up: recipe.steps=3") and told.effect is not None
    assert labels.changed_options(records.runs[SUBJECT][0]) == f"width={len(SUBJECT)}"


# ------------------------------------------------------------------ families


def test_holm_only_weakens_a_verdict():
    records = records_of([91.0, 92.4, 92.8], BASE)
    single = one(records, smallest_effect=0.1)
    assert single.adjusted == "reproduced" and single.p_holm == single.p and single.family == 1
    family = judged(records, *(claim(f"C{i}", "S.", SUBJECT, REFERENCE, smallest_effect=0.1) for i in range(6)))
    assert {(v.raw, v.adjusted, v.family) for v in family} == {("reproduced", "inconclusive", 6)}
    assert family[0].p_holm == pytest.approx(min(1, 6 * single.p))
    assert "reproduced on its own" in family[0].reason


def test_untested_claims_do_not_count_into_the_family():
    records = records_of([91.0, 92.4, 92.8], BASE)
    tested, untested = judged(
        records,
        claim("C1", "S.", SUBJECT, REFERENCE, smallest_effect=0.1),
        claim("C2", "S.", SUBJECT, REFERENCE, tiers=("paper",)),
    )
    assert (tested.family, tested.adjusted, untested.adjusted) == (1, "reproduced", "not tested")
