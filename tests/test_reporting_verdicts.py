"""From records to verdicts: the rules, the reasons for not testing, and what is paired with what."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from reporting_factory import TASK, TASKS, claim, failed, papers, record
from scipy import stats

from replications import catalogue
from replications.reporting import labels, wording
from replications.reporting.need import need_summary, need_text, next_seeds
from replications.reporting.results import Records
from replications.reporting.verdicts import Verdict, judge
from replications.tasks.base import Metric, find_task

DECIDED = ("reproduced", "contradicted")

SUBJECT, REFERENCE = "arcface/arcface", "arcface/softmax"
CATALOGUE = papers()


@cache
def base_record(address: str, seed: int):
    return record(address, seed, pairs=20)[0]


def run(address: str, seed: int, value: float, metric: str = "accuracy", **changes):
    """A finished record with one metric."""
    base = base_record(address, seed)
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
FIVE = [90.0, 91.0, 92.0, 93.0, 94.0]


@pytest.mark.parametrize(
    ("direction", "effects", "word"),
    [
        ("greater", [1.0, 1.1, 0.9], "reproduced"),
        ("greater", [0.10, 0.11, 0.12], "contradicted"),  # shown to be there, and shown to be below delta
        ("greater", [-1.0, -1.1, -0.9], "contradicted"),
        ("greater", [1.0, -1.1, 2.0], "inconclusive"),
        ("less", [-1.0, -1.1, -0.9], "reproduced"),
        ("less", [1.0, 1.1, 0.9], "contradicted"),
        ("equal", [0.01, -0.02, 0.01], "reproduced"),
        ("equal", [0.1, -0.1, 0.05], "inconclusive"),  # at a tenth of 5 % three seeds must agree closely
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
    records = records_of([80.5, 91.6, 70.4, 50.5, 60.6], [80.0, 91.0, 70.0, 50.0, 60.0])
    assert one(records, smallest_effect=0.1).adjusted == "reproduced"
    records.runs[REFERENCE][5] = run(REFERENCE, 5, 10.0)  # a seed without its partner
    told = one(records, smallest_effect=0.1)
    assert (told.seeds, told.waiting, told.waiting_values) == ((0, 1, 2, 3, 4), (5,), (None,))


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


# ------------------------------------------------------------------ metrics of a logarithmic scale

CLOCKED = SimpleNamespace(
    **{**vars(TASK), "metrics": TASK.metrics | {"step_ms": Metric("Step", "ms", False, "", 1, scale="log", timed=True)}}
)
RATIO = {"metric": "step_ms", "effect": "ratio", "smallest_effect": 0.1}


def judged_times(subject, reference, claims) -> list[Verdict]:
    records = records_of(subject, reference, metric="step_ms")
    paper = CATALOGUE["arcface"].model_copy(update={"claims": tuple(claims)})
    return judge(records, {"arcface": paper}, {"face_verification": CLOCKED}, result=True)


def test_times_are_compared_as_ratios_only():
    told = judged_times([10.0, 11.0, 13.0], [8.0, 9.0, 9.5], [claim("C", "S.", SUBJECT, REFERENCE, metric="step_ms")])
    assert told[0].adjusted == "not tested" and "effect: ratio" in told[0].reason
    subject, reference = np.array([10.0, 11.0, 13.0]), np.array([8.0, 9.0, 9.5])
    told = judged_times(subject, reference, [claim("C", "S.", SUBJECT, REFERENCE, **RATIO)])[0]
    test = stats.ttest_rel(np.log(subject), np.log(reference))
    assert told.p_looks == pytest.approx([test.pvalue]) and told.p == pytest.approx(test.pvalue / 0.1)
    assert told.interval == pytest.approx(np.exp(test.confidence_interval(0.95)))
    below = stats.ttest_1samp(np.log(subject / reference), np.log(1.1), alternative="less").pvalue
    assert told.p_against_looks == pytest.approx([min(1, 2 * below)])


def test_times_of_rows_without_training_are_compared():
    claims = [claim("C", "S.", SUBJECT, REFERENCE, **RATIO)]
    records = records_of([10.0, 11.0, 13.0], [8.0, 9.0, 9.5], metric="step_ms")
    for run in (run for runs in records.runs.values() for run in runs.values()):
        run.spec = run.spec.model_copy(update={"recipe": None})
    paper = CATALOGUE["arcface"].model_copy(update={"claims": tuple(claims)})
    found = judge(records, {"arcface": paper}, {"face_verification": CLOCKED}, result=True)[0]
    assert found.effect == judged_times([10.0, 11.0, 13.0], [8.0, 9.0, 9.5], claims)[0].effect


def test_every_claim_of_the_suite_on_a_time_a_memory_or_a_speed_up_is_a_ratio():
    told = {}
    for key, paper in catalogue.papers().items():
        metrics = find_task(paper.task).metrics
        for one in paper.claims:
            if metrics[one.subject.metric].scale == "log":
                told[f"{key}/{one.id}"] = one.effect
    assert {"flash/F4", "linear_attention/L5", "mae/M3c", "sonet/S1", "conditional_detr/CD1"} <= told.keys()
    assert set(told.values()) == {"ratio"}


def test_skewed_noise_of_unequal_spread_misleads_a_paper_at_most_five_times_in_a_hundred():
    """Lognormal step times, each claim at a truth where deciding it so is wrong."""
    trials, n, random = 150, 5, np.random.default_rng(5)
    wrong = {"C1": "reproduced", "C2": "reproduced", "C3": "reproduced", "C4": "reproduced", "C5": "contradicted"}
    claims = [
        claim("C1", "S.", SUBJECT, REFERENCE, **RATIO),
        claim("C2", "S.", SUBJECT, REFERENCE, **RATIO, direction="less"),
        claim("C3", "S.", SUBJECT, expected=100.0, **RATIO),
        claim("C4", "S.", SUBJECT, expected=100.0, **RATIO, direction="less"),
        claim("C5", "S.", SUBJECT, expected=100 / 1.1, **RATIO),
    ]
    noise = 0.8 * random.standard_normal((trials, n))
    subject, reference = 100 * np.exp(noise), 100 * np.exp(0.05 * random.standard_normal((trials, n)))
    misled = sum(
        any(v.adjusted == wrong[v.claim] for v in judged_times(own, other, claims))
        for own, other in zip(subject, reference, strict=True)
    )
    assert misled / trials <= 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5
    differences = 100 * np.exp(noise - 0.8**2 / 2) - reference  # of equal means
    t = differences.mean(1) / stats.sem(differences, axis=1)
    assert (stats.t.cdf(t, n - 1) <= 0.025).mean() > 0.1, "compared by differences, one claim alone errs more often"


# ------------------------------------------------------------------ seeds that failed


@pytest.mark.parametrize("direction", ["greater", "less", "equal"])
def test_a_seed_that_failed_on_one_side_leaves_a_claim_inconclusive(direction):
    effects = {"greater": [1.0, 1.1, 0.9], "less": [-1.0, -1.1, -0.9], "equal": [0.01, -0.01, 0.005]}[direction]
    base = [90.0, 91.0, 92.0, 93.0, 94.0]
    for address in (SUBJECT, REFERENCE):
        records = records_of([b + e for b, e in zip(base, [*effects, 0, 0], strict=True)], base)
        for seed in (1, 4):
            records.runs[address][seed] = failed(address, seed)
        told = one(records, direction=direction)
        assert (told.raw, told.adjusted, told.seeds) == ("inconclusive", "inconclusive", (0, 2, 3))
        assert (told.failed_seeds, told.p, told.needed) == ((1, 4), 1.0, None)
        assert told.reason == f"{address} diverged at seeds 1, 4"
    records.runs[REFERENCE][4] = failed(REFERENCE, 4, reason="out of memory")
    assert f"{REFERENCE} failed at seed 4 (out of memory)" in one(records, direction=direction).reason


def test_against_a_constant_a_failed_seed_is_not_dropped_either():
    records = records_of([91.0, 91.2, 91.1], None)
    records.runs[SUBJECT][2] = failed(SUBJECT, 2)
    told = one(records, reference=None, expected=90.0)
    assert (told.adjusted, told.reason) == ("inconclusive", f"{SUBJECT} diverged at seed 2")


def test_a_seed_that_failed_on_both_sides_is_left_out_and_said():
    records = records_of([91.0, 92.1, 92.9, 0.0, 94.0], [*BASE, 0.0, 93.0])
    for address in (SUBJECT, REFERENCE):
        records.runs[address][3] = failed(address, 3)
    told = one(records)
    assert told.adjusted == "reproduced" and told.reason.endswith("; seed 3 left out: failed on both sides")


def test_a_seed_without_the_metric_is_not_dropped_in_silence():
    records = records_of([90.4, 92.1, 92.9, 93.0, 93.0], [*BASE, 92.0, 91.0])
    records.runs[REFERENCE][3] = run(REFERENCE, 3, 92.0, metric="other")
    assert one(records).reason == f"{REFERENCE} has no metric 'accuracy' at seed 3"


def test_a_failure_does_not_shrink_the_family():
    records = records_of([91.0, 92.1, 92.9], BASE)
    records.runs["cosface/cosface"] = {s: run("cosface/cosface", s, 90.0 + s) for s in range(2)}
    records.runs["cosface/cosface"][2] = failed("cosface/cosface", 2)
    told = judged(records, claim("C1", "S.", SUBJECT, REFERENCE), claim("C2", "S.", SUBJECT, "cosface/cosface"))
    assert [v.family for v in told] == [2, 2] and told[1].adjusted == "inconclusive"


@pytest.mark.parametrize("n", [3, 5])
def test_no_effect_is_rarely_reproduced_where_the_worst_third_fails(n):
    """Equal methods, but the subject's worst third diverges: what is left of it looks better than it is."""
    trials, random = 2000, np.random.default_rng(n)
    subject, reference = random.standard_normal((2, trials, n))
    fails = subject < stats.norm.ppf(1 / 3)
    records = records_of([0.0] * n, [0.0] * n)
    found = 0
    whole = np.flatnonzero(~fails.any(1))[:150]
    for own, other in zip(subject[whole], reference[whole], strict=True):
        for seed in range(n):  # with a failure there is no verdict: see above
            records.runs[SUBJECT][seed].metrics["accuracy"] = own[seed]
            records.runs[REFERENCE][seed].metrics["accuracy"] = other[seed]
        found += one(records, smallest_effect=0.1).adjusted == "reproduced"
    assert found / len(whole) * (~fails.any(1)).mean() <= 0.025
    pairs = (d[~out] for d, out in zip(subject - reference, fails, strict=True) if (~out).sum() > 1)
    p = [stats.t.sf(d.mean() / stats.sem(d), len(d) - 1) for d in pairs]
    assert (np.array(p) <= 0.025).sum() / trials > 0.03, "dropped in silence, failures mislead"


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
    assert verdict.reason == f"2 seeds, the first look needs 3; {REFERENCE} diverged at seed 1"
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


def with_test_set(records, address, test):
    """Set the test data of a method's runs."""
    for seed, of in records.runs[address].items():
        spec = of.spec.model_copy(update={"data": {"train": "faces_mini", "test": test}})
        records.runs[address][seed] = of.model_copy(update={"spec": spec})


def test_two_forms_of_one_set_compare_and_other_sets_do_not():
    def reason(subject, reference):
        records = records_of([91.0, 92.0, 93.1], BASE)
        for address, test in ((SUBJECT, subject), (REFERENCE, reference)):
            with_test_set(records, address, test)
        return one(records).reason

    refused = "subject and reference differ in their test data"
    assert reason("faces_aligned", "faces_unaligned") != refused
    assert reason("faces_aligned", "faces_frontal") != refused
    assert reason("faces_aligned", "faces_mini") == refused
    assert reason("faces_few", "faces_aligned") == refused, "a form of nothing"


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


# ------------------------------------------------------------------ runs that do not match


def changed(record, where: str, value):
    """A copy of a record with one field of it, or of its provenance, cost, spec or recipe, changed."""
    head, _, rest = where.partition(".")
    if not rest:
        return record.model_copy(update={head: value})
    return record.model_copy(update={head: changed(getattr(record, head), rest, value)})


def made_different(where: str, value, seeds=(0, 1, 2), address: str = REFERENCE, metric: str = "accuracy") -> Records:
    records = records_of([91.0, 92.1, 92.9], BASE, metric=metric)
    for seed in seeds:
        records.runs[address][seed] = changed(records.runs[address][seed], where, value)
    return records


OTHER = {
    "code_fingerprint": ("other", "code"),
    "data_fingerprint": ("other", "data"),
    "provenance.device": ("NVIDIA H100", "device"),
    "spec.recipe.lr": (0.2, "set-up"),
    "spec.options": ({"width": 2}, "set-up"),
    "spec.task_options": ({"pairs": 3}, "set-up"),
}


@pytest.mark.parametrize("where", OTHER)
def test_seeds_of_a_side_must_match(where):
    value, word = OTHER[where]
    told = one(made_different(where, value, seeds=[1]))
    assert told.adjusted == "not tested"
    assert told.reason.startswith(f"the seeds of {REFERENCE} differ in their {word}")
    assert told.effect is not None and told.p is None


@pytest.mark.parametrize("where", [where for where in OTHER if where != "spec.options"])
def test_sides_must_match(where):
    value, word = OTHER[where]
    told = one(made_different(where, value))
    assert told.adjusted == "not tested" and told.reason.startswith(f"subject and reference differ in their {word}")
    assert one(made_different(where, value, address=SUBJECT)).adjusted == "not tested"


def test_the_reason_names_what_differs():
    assert "(cpu against NVIDIA H100)" in one(made_different("provenance.device", "NVIDIA H100")).reason
    assert "(recipe.lr: 0.1 against 0.2)" in one(made_different("spec.recipe.lr", 0.2)).reason
    assert "(mini against standard)" in one(made_different("spec.tier", "standard")).reason


def with_modules(subject: dict, reference: dict, field: str = "modules") -> Records:
    records = records_of([91.0, 92.1, 92.9], BASE)
    for address, told in ((SUBJECT, subject), (REFERENCE, reference)):
        for seed, of in records.runs[address].items():
            print_of = {"modules": "code_fingerprint", "sets": "data_fingerprint"}[field]
            records.runs[address][seed] = of.model_copy(update={field: told, print_of: str(sorted(told.items()))})
    return records


def of_another_paper(records: Records, **spec_changes) -> Records:
    """The same records, the reference's as if made by another paper's model."""
    for seed, of in records.runs[REFERENCE].items():
        spec = of.spec.model_copy(update={"paper": "cosface", "method": "cosface", **spec_changes})
        records.runs[REFERENCE][seed] = of.model_copy(update={"spec": spec})
    return records


def test_sides_are_held_together_by_the_modules_that_both_use():
    loss, differ = "replications.tasks.toy.loss", "subject and reference differ in their code of tasks.toy.loss"
    mine, theirs = "replications.papers.arcface.model", "replications.papers.cosface.model"
    assert one(with_modules({loss: "2", mine: "3"}, {loss: "9", mine: "3"})).reason == differ
    assert one(of_another_paper(with_modules({loss: "2", mine: "3"}, {loss: "9", theirs: "4"}))).reason == differ
    assert (
        one(of_another_paper(with_modules({loss: "2", mine: "3"}, {loss: "2", theirs: "4"}))).adjusted == "reproduced"
    )


def test_options_set_by_hand_must_agree_where_both_sides_have_them():
    def of(subject: dict, reference: dict) -> Verdict:
        records = records_of([91.0, 92.1, 92.9], BASE)
        for address, options in ((SUBJECT, subject), (REFERENCE, reference)):
            changes = tuple(f"options.{name}={value}" for name, value in options.items())
            for seed, one_run in records.runs[address].items():
                build = catalogue.papers()["arcface"].methods[one_run.spec.method].build
                spec = one_run.spec.model_copy(update={"options": options, "changes": changes, "build": build})
                records.runs[address][seed] = one_run.model_copy(update={"spec": spec})
        return one(records)

    assert of({"backbone": 2}, {"backbone": 2}).warnings == ()
    told = of({"margin": 1, "backbone": 2}, {"backbone": 2})
    assert told.adjusted == "reproduced" and told.warnings == ("options set by hand differ: margin=1 against none",)
    told = of({"backbone": 3}, {"backbone": 2})
    assert told.reason.endswith("differ in their set-up (options.backbone: 3 against 2)")
    assert of({"backbone": 3}, {}).reason.endswith("differ in their category"), "one side is not the tier's"
    # A tier hands its options to every model; softmax takes no margin.
    told = of({"margin": 1, "backbone": 2}, {"margin": 2, "backbone": 2})
    assert told.adjusted == "reproduced" and "margin=1 against margin=2" in told.warnings[0]


def test_sides_are_held_together_by_the_sets_that_both_use():
    differ = "subject and reference differ in their data of faces_mini"
    mine, theirs = {"faces_mini": "1", "a": "5"}, {"faces_mini": "2", "b": "6"}
    assert one(with_modules({"faces_mini": "1"}, {"faces_mini": "2"}, field="sets")).reason == differ
    other = {"data": {"train": "another", "test": "faces_mini"}}
    assert one(of_another_paper(with_modules(mine, theirs, field="sets"), **other)).reason == differ


def test_what_a_paper_changes_by_its_own_word_is_no_reason():
    methods = CATALOGUE["arcface"].methods
    own = methods["softmax"].model_copy(
        update={"recipe": {"lr": 0.2, "steps": 9}, "task": {"pairs": 3}, "options": {"width": 2}, "why": "the point"}
    )
    paper = CATALOGUE["arcface"].model_copy(
        update={"methods": {**methods, "softmax": own}, "claims": (claim("C", "S.", SUBJECT, REFERENCE),)}
    )
    records = records_of([91.0, 92.1, 92.9], BASE)
    for address, options in ((SUBJECT, {"width": 1, "margin": 0.5}), (REFERENCE, {"width": 2})):
        for seed, of in records.runs[address].items():
            records.runs[address][seed] = changed(of, "spec.options", options)
    for seed, of in records.runs[REFERENCE].items():
        recipe = of.spec.recipe.model_copy(update={"lr": 0.2, "steps": 9, "epochs": None})
        records.runs[REFERENCE][seed] = changed(changed(of, "spec.recipe", recipe), "spec.task_options", {"pairs": 3})
    assert judge(records, {"arcface": paper}, TASKS, True)[0].adjusted == "reproduced"
    told = judge(records, {"arcface": paper.model_copy(update={"methods": methods})}, TASKS, True)[0]
    assert "set-up (recipe.epochs: 4.0 against None)" in told.reason


@pytest.mark.parametrize(
    ("where", "value"),
    [("spec.recipe.batch_size", 8), ("spec.recipe.precision", "bf16"), ("spec.threads", 2), ("provenance.cpu", "Else")],
)  # fmt: skip
def test_times_are_compared_at_equal_batch_precision_threads_and_processor_only(where, value):
    methods = CATALOGUE["arcface"].methods
    own = methods["softmax"].model_copy(update={"recipe": {"batch_size": 1, "precision": "bf16"}, "why": "the point"})
    for metric, word in (("accuracy", "reproduced"), ("step_ms", "not tested")):
        changes = RATIO if metric == "step_ms" else {}
        paper = CATALOGUE["arcface"].model_copy(
            update={
                "methods": {**methods, "softmax": own},
                "claims": (claim("C", "S.", SUBJECT, REFERENCE, **{**changes, "smallest_effect": 0.001}),),
            }
        )
        records = made_different(where, value, metric=metric)
        told = judge(records, {"arcface": paper}, {"face_verification": CLOCKED}, True)[0]
        assert told.adjusted == word, told.reason


def test_times_under_unequal_load_are_not_compared_and_under_equal_load_are_marked():
    claims = [claim("C", "S.", SUBJECT, REFERENCE, **RATIO)]
    paper = {"arcface": CATALOGUE["arcface"].model_copy(update={"claims": tuple(claims)})}
    records = made_different("cost.background_load", 0.69, metric="step_ms")
    assert judge(records, paper, {"face_verification": CLOCKED}, True)[0].adjusted != "not tested", (
        "the other is unknown"
    )
    for seed, of in records.runs[SUBJECT].items():
        records.runs[SUBJECT][seed] = changed(of, "cost.background_load", 0.05)
    told = judge(records, paper, {"face_verification": CLOCKED}, True)[0]
    assert told.reason == "subject and reference differ in their machine's load by others at seed 0 (5% against 69%)"
    for seed, of in records.runs[SUBJECT].items():
        records.runs[SUBJECT][seed] = changed(of, "cost.background_load", 0.6)
    told = judge(records, paper, {"face_verification": CLOCKED}, True)[0]
    assert told.adjusted != "not tested" and "up to 69% of the machine" in told.warnings[0]
    assert one(made_different("cost.background_load", 0.69)).warnings == (), "no clock, no matter"


def test_times_of_runs_that_shared_a_gpu_are_not_judged_and_their_other_numbers_are():
    claims = [claim("C", "S.", SUBJECT, REFERENCE, **RATIO)]
    paper = {"arcface": CATALOGUE["arcface"].model_copy(update={"claims": tuple(claims)})}
    records = made_different("cost.runs_per_gpu", 8, metric="step_ms")
    told = judge(records, paper, {"face_verification": CLOCKED}, True)[0]
    assert told.adjusted == "not tested" and told.reason.startswith("times of runs that shared a GPU are not judged: ")
    assert one(made_different("cost.runs_per_gpu", 8)).adjusted == "reproduced"


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("provenance.cpu", "Other CPU", "processors differ: Example CPU 3.0 GHz (arcface/arcface seeds 0, 1, 2; "),
        ("provenance.cpu_capability", "AVX512", "kernel instruction sets differ: AVX2 (arcface/arcface seeds 0, 1, 2;"),
        ("provenance.packages", {"torch": "9.9"}, "versions of torch differ: 2.13.0 (arcface/arcface seeds 0, 1, 2; "),
        ("provenance.dirty", True, "uncommitted code: arcface/softmax seed 2"),
        ("provenance.commit", "f" * 40, "commits differ: 0123456789ab (arcface/arcface seeds 0, 1, 2; "),
    ],
)  # fmt: skip
def test_what_may_have_moved_a_number_is_a_warning(where, value, words):
    records = made_different("provenance.python", "3.11.9")
    assert one(records).warnings == ()
    for address in (SUBJECT, REFERENCE):
        for seed, of in records.runs[address].items():
            records.runs[address][seed] = changed(of, "provenance.cpu_capability", "AVX2")
    assert one(records).warnings == ()
    records.runs[REFERENCE][2] = changed(records.runs[REFERENCE][2], where, value)
    told = one(records)
    assert told.adjusted == "reproduced" and len(told.warnings) == 1 and told.warnings[0].startswith(words)


# ------------------------------------------------------------------ families


def test_holm_only_weakens_a_verdict():
    records = records_of([91.0, 92.9, 92.3, 94.1, 95.6], FIVE)
    single = one(records, smallest_effect=0.1)
    assert single.adjusted == "reproduced" and single.p_holm == single.p and single.family == 1
    family = judged(records, *(claim(f"C{i}", "S.", SUBJECT, REFERENCE, smallest_effect=0.1) for i in range(6)))
    assert {(v.raw, v.adjusted, v.family) for v in family} == {("reproduced", "inconclusive", 6)}
    assert family[0].p_holm == pytest.approx(min(1, 6 * single.p))
    assert "reproduced on its own" in family[0].reason


def test_untested_claims_do_not_count_into_the_family():
    records = records_of([91.0, 92.9, 92.3, 94.1, 95.6], FIVE)
    tested, untested = judged(
        records,
        claim("C1", "S.", SUBJECT, REFERENCE, smallest_effect=0.1),
        claim("C2", "S.", SUBJECT, REFERENCE, tiers=("paper",)),
    )
    assert (tested.family, tested.adjusted, untested.adjusted) == (1, "reproduced", "not tested")


def test_an_equality_claim_alone_is_doubled_too():
    values = np.array([0.1, -0.5, 0.3, -0.35, 0.2])
    told = one(records_of(list(90 + values), [90.0] * 5), direction="equal", smallest_effect=0.6)
    sides = [stats.ttest_1samp(values, m, alternative=a).pvalue for m, a in ((-0.6, "greater"), (0.6, "less"))]
    assert 0.025 < max(sides) / 0.4 <= 0.05, "the case is between 2.5 and 5 % of the second look"
    assert told.p == pytest.approx(max(sides) / 0.4) and told.p_holm == pytest.approx(2 * max(sides) / 0.4)
    assert (told.raw, told.adjusted, told.family) == ("reproduced", "inconclusive", 1)
    assert told.reason.startswith("reproduced at 5 %, but statement and denial share these")


# ------------------------------------------------------------------ looks


def look_records(effects, base=None) -> Records:
    base = base or [90.0 + seed for seed in range(len(effects))]
    return records_of([b + e for b, e in zip(base, effects, strict=True)], base)


EIGHT = [0.9, 1.4, 0.2, 0.8, 1.1, 0.5, 1.3, 0.7]


def test_p_values_of_looks_are_divided_by_their_weights():
    told = one(look_records(EIGHT), smallest_effect=0.5)
    for place, (n, weight) in enumerate(((3, 0.1), (5, 0.4), (8, 0.3))):
        assert told.p_looks[place] == pytest.approx(stats.ttest_1samp(EIGHT[:n], 0).pvalue)
        below = 2 * stats.ttest_1samp(EIGHT[:n], 0.5, alternative="less").pvalue
        assert told.p_against_looks[place] == pytest.approx(min(1, below))
        assert told.p <= told.p_looks[place] / weight + 1e-12
    each = [stats.ttest_1samp(EIGHT[:n], 0).pvalue / weight for n, weight in ((3, 0.1), (5, 0.4), (8, 0.3))]
    assert told.p == pytest.approx(min(each)) and (told.looks, told.adjusted) == (3, "reproduced")


def test_seeds_beyond_the_last_complete_look_wait():
    told, five = one(look_records(EIGHT[:7])), one(look_records(EIGHT[:5]))
    assert told.values == five.values and told.p == five.p and told.interval == five.interval
    assert (told.looks, told.n, told.waiting) == (2, 5, (5, 6))
    assert told.waiting_values == pytest.approx(EIGHT[5:7])
    assert wording.waiting(told) == "seeds 5, 6 wait for the third look at 8 (+0.50, +1.30)"
    records = look_records(EIGHT)
    del records.runs[REFERENCE][4]
    told = one(records)
    assert (told.looks, told.seeds, told.waiting) == (1, (0, 1, 2), (3, 4, 5, 6, 7))
    assert wording.waiting(told).startswith("seeds 3, 4 wait for the second look at 5 (+0.80, no pair); seeds 5, 6, 7")


def test_fewer_than_three_seeds_and_other_seeds_are_not_judged():
    assert one(look_records(EIGHT[:2])).reason == "2 seeds, the first look needs 3"
    assert one(look_records(EIGHT[:1])).reason == "1 seed, the first look needs 3"
    records = look_records(EIGHT)
    for runs in records.runs.values():
        for seed in (1, 2, 3, 4, 5, 6):
            del runs[seed]
    told = one(records)
    assert told.adjusted == "not tested" and told.p is None and told.values == pytest.approx((0.9, 0.7))
    assert told.reason == "seeds 0, 7 are a trial: the first look is of the seeds 0 to 2"


def test_what_a_look_decides_stays():
    """Three seeds establish the effect; five show that it is far smaller, and neither takes the other back."""
    early, late = [1.0, 1.001, 0.999], [1.0, 1.001, 0.999, 0.98, 1.02]
    assert one(look_records(early), smallest_effect=1.5).adjusted == "contradicted", "both at one look"
    told = one(look_records([1.0, 1.1, 0.9, 0.2, -0.9]), smallest_effect=0.5)
    assert stats.ttest_1samp([1.0, 1.1, 0.9, 0.2, -0.9], 0).pvalue > 0.05
    assert (told.raw, told.adjusted, told.reached, told.looks) == ("reproduced", "reproduced", 1, 2)
    assert told.reason.startswith("at the first look (3 seeds): the effect has the claimed sign")
    assert told.effect == pytest.approx(0.46) and told.interval[0] < 0
    told = one(look_records([1.0, 1.1, 0.9, 1.0, 1.0]), smallest_effect=1.2)
    assert one(look_records([1.0, 1.1, 0.9]), smallest_effect=1.2).adjusted == "reproduced"
    assert stats.ttest_1samp([1.0, 1.1, 0.9, 1.0, 1.0], 1.2, alternative="less").pvalue < 0.01
    assert (told.adjusted, told.reached) == ("reproduced", 1)
    assert told.reason.endswith("; a later look rules out one of 1.20 points")
    assert one(look_records(late), smallest_effect=1.2).reached == 1


def test_a_seed_that_fails_later_leaves_what_was_decided():
    records = look_records([1.0, 1.1, 0.9, 1.0, 1.0])
    records.runs[SUBJECT][4] = failed(SUBJECT, 4)
    told = one(records)
    assert (told.adjusted, told.reached, told.p_looks[1]) == ("reproduced", 1, 1.0)
    assert told.reason.endswith(f"; {SUBJECT} diverged at seed 4") and told.failed_seeds == (4,)


def test_a_look_needs_three_pairs():
    records = look_records([1.0, 1.0001, 0.9])
    for address in (SUBJECT, REFERENCE):
        records.runs[address][2] = failed(address, 2)
    told = one(records)
    assert (told.adjusted, told.p, told.n) == ("inconclusive", 1.0, 2)


# ------------------------------------------------------------------ exact claims, and no effect at all


@pytest.mark.parametrize(
    ("direction", "effects", "word"),
    [
        ("equal", [0.0], "reproduced"),
        ("equal", [0.5], "reproduced"),  # the margin itself
        ("equal", [0.0, 0.51, 0.0], "contradicted"),
        ("greater", [0.5, 3.0], "reproduced"),
        ("greater", [0.49, 3.0], "contradicted"),
        ("less", [-0.5, -3.0], "reproduced"),
        ("less", [-0.5, 3.0], "contradicted"),
    ],
)
def test_an_exact_claim_is_checked_at_every_seed(direction, effects, word):
    records = look_records(effects, [16.0] * len(effects))
    told = one(records, direction=direction, evidence="exact")
    assert (told.raw, told.adjusted, told.n) == (word, word, len(effects))
    assert (told.p, told.interval, told.family, told.looks) == (None, None, 0, 0)
    assert told.reason.startswith("checked, not sampled: ") and "checked, not sampled" in told.evidence_text


def test_an_exact_claim_without_a_margin_takes_rounding_for_none():
    assert (
        one(look_records([0.3 - 0.2 - 0.1]), direction="equal", smallest_effect=0, evidence="exact").raw == "reproduced"
    )
    assert one(look_records([1e-6]), direction="equal", smallest_effect=0, evidence="exact").raw == "contradicted"
    assert one(look_records([0.0]), direction="greater", smallest_effect=0, evidence="exact").raw == "contradicted"


def test_an_exact_claim_has_no_part_in_holm_and_minds_failures():
    records = records_of([91.0, 92.9, 92.3, 94.1, 95.6], FIVE)
    both = judged(
        records,
        claim("C1", "S.", SUBJECT, REFERENCE, smallest_effect=0.1),
        claim("C2", "S.", SUBJECT, REFERENCE, smallest_effect=0.1, evidence="exact"),
    )
    assert [(v.adjusted, v.family) for v in both] == [("reproduced", 1), ("reproduced", 0)]
    records.runs[SUBJECT][3] = failed(SUBJECT, 3)
    told = one(records, smallest_effect=0.1, evidence="exact")
    assert (told.adjusted, told.reason) == ("inconclusive", f"{SUBJECT} diverged at seed 3")
    assert one(records, smallest_effect=1.5, evidence="exact").adjusted == "contradicted"


@pytest.mark.parametrize(
    ("direction", "delta", "base", "word"),
    [
        ("greater", 0.5, BASE, "contradicted"),
        ("less", 0.5, BASE, "contradicted"),
        ("equal", 0.5, BASE, "reproduced"),
        ("greater", 0.0, BASE, "inconclusive"),
        ("greater", 0.5, [100.0] * 3, "inconclusive"),  # a ceiling
        ("greater", 0.5, [100.0, 99.5, 100.0], "inconclusive"),
    ],
)
def test_no_effect_at_all(direction, delta, base, word):
    told = one(records_of(base, base), direction=direction, smallest_effect=delta)
    assert (told.adjusted, told.p, told.family) == (word, None, 0)
    assert told.reason.startswith("no effect at all: the sides are equal in each of 3 seeds")


# ------------------------------------------------------------------ what it would take


def test_the_seeds_an_undecided_claim_needs_give_four_chances_in_five():
    """The power at the look that is named, and at the one before it, simulated with scipy's t test."""
    effects = np.array([1.2, -0.4, 0.9])
    told = one(look_records(effects.tolist()), smallest_effect=0.2)
    d, sd = effects.mean(), effects.std(ddof=1)

    def power(n: int, weight: float) -> float:
        sample = np.random.default_rng(n).normal(d, sd, (20_000, n))
        return (stats.ttest_1samp(sample, 0, axis=1, alternative="greater").pvalue <= 0.025 * weight).mean()

    assert power(8, 0.3) < 0.78 and told.adjusted == "inconclusive"
    far = told.needed
    assert told.needed_look is None and 12 < far <= 40
    assert power(far, 0.2) >= 0.79 and power(far - 1, 0.2) < 0.81
    near = one(look_records([1.5, 0.6, 1.1]), smallest_effect=0.2)
    d, sd = np.mean([1.5, 0.6, 1.1]), np.std([1.5, 0.6, 1.1], ddof=1)
    assert (near.needed, near.needed_look) == (5, 2) and power(5, 0.4) > 0.8


def test_more_claims_of_a_paper_need_more_seeds_and_hopeless_ones_say_so():
    records = look_records([1.5, 0.6, 1.1])
    family = judged(records, *(claim(f"C{i}", "S.", SUBJECT, REFERENCE, smallest_effect=0.1) for i in range(12)))
    assert {v.needed for v in family} == {8}
    told = one(look_records([1.0, -1.1, 0.6]), smallest_effect=0.1)
    assert (told.needed, told.needed_minutes) == (None, ()) and need_text(told) == "not within 40 seeds here"
    assert next_seeds([told], 4) == {} and next_seeds([told], 4, hopeless=True) == {SUBJECT: 5, REFERENCE: 5}


def test_what_is_needed_is_paid_by_the_rows_own_durations():
    records = look_records([1.5, 0.6, 1.1])
    for address, seconds in ((SUBJECT, 60.0), (REFERENCE, 30.0)):
        for seed, of in records.runs[address].items():
            records.runs[address][seed] = changed(of, "cost.total_seconds", seconds)
    records.runs[REFERENCE][3] = run(REFERENCE, 3, 92.0, cost=records.runs[REFERENCE][0].cost)
    first, second = judged(
        records,
        claim("C1", "S.", SUBJECT, REFERENCE, smallest_effect=0.2),
        claim("C2", "S.", SUBJECT, REFERENCE, smallest_effect=0.2),
    )
    assert first.needed == 8 and first.needed_minutes == pytest.approx((5.0, 2.0)), "reference has four seeds already"
    assert need_text(first) == "8 seeds (the third look), 7 core-minutes more"
    assert need_summary([first, second]) == "2 claims undecided: 2 need 8 seeds (7 core-minutes more)"
    assert next_seeds([first, second], 4) == {SUBJECT: 5, REFERENCE: 5} and next_seeds([first], 1) == {}
    for address in (SUBJECT, REFERENCE):
        for seed, of in records.runs[address].items():
            of = changed(changed(of, "provenance.device_kind", "cuda"), "cost.runs_per_gpu", 4)
            records.runs[address][seed] = of
    on_gpu = one(records, smallest_effect=0.2)
    assert (on_gpu.needed, on_gpu.needed_unit) == (5, "GPU-minutes")
    assert on_gpu.needed_minutes == pytest.approx((0.5, 0.125))


def test_a_failed_seed_leaves_nothing_to_need():
    records = look_records([1.5, 0.6, 1.1])
    records.runs[SUBJECT][1] = failed(SUBJECT, 1)
    told = one(records)
    assert told.adjusted == "inconclusive" and need_text(told) == "" and next_seeds([told], 4, hopeless=True) == {}
    assert need_summary([told]) == "1 claim undecided: 1 cannot be decided by more seeds"
