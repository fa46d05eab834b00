"""Two folders: do they come to the same verdicts, and do they differ by more than their seeds do?"""

import pytest
from reporting_factory import TASKS, claim, papers, record
from scipy.stats import ttest_ind

from replications.reporting.agreement import agreement, agreement_table, in_words
from replications.reporting.results import Records

SEEDS = range(5)


def records(**accuracy: list[float]) -> Records:
    """Records of arcface/arcface and arcface/softmax with these accuracies by seed."""
    found = Records("mini")
    for method, values in accuracy.items():
        address = f"arcface/{method}"
        for seed, value in enumerate(values):
            run = record(address, seed, pairs=20)[0]
            run.metrics["accuracy"] = value
            found.runs.setdefault(address, {})[seed] = run
    return found


@pytest.fixture
def paper():
    arcface = papers()["arcface"]
    better = claim("C1", "better", "arcface/arcface", "arcface/softmax", direction="greater", smallest_effect=1.0)
    return {"arcface": arcface.model_copy(update={"claims": (better,)})}


ABOVE = {"arcface": [90.0, 90.1, 90.2, 89.9, 90.0], "softmax": [80.0, 80.2, 80.1, 80.0, 79.8]}
BELOW = {"arcface": ABOVE["softmax"], "softmax": ABOVE["arcface"]}
UNCLEAR = {"arcface": [90.0, 70.0, 80.0, 99.0, 60.0], "softmax": [80.0, 80.1, 80.2, 79.9, 80.0]}


@pytest.mark.parametrize(
    ("first", "second", "how"),
    [
        (ABOVE, ABOVE, "alike"),
        (ABOVE, BELOW, "opposite"),
        (ABOVE, UNCLEAR, "only first"),
        (UNCLEAR, BELOW, "only second"),
    ],
)
def test_a_decided_claim_is_counted_by_how_the_folders_agree(paper, first, second, how):
    found = agreement((records(**first), records(**second)), paper, TASKS)
    assert found.counts == {"alike": 0, "only first": 0, "only second": 0, "opposite": 0} | {how: 1}
    assert list(found.claims["address"]) == ([] if how == "alike" else ["arcface/C1"])
    words = {"alike": "1 are decided alike", "opposite": "1 the opposite way"}.get(
        how, f"1 in the {how.split()[-1]} only"
    )
    assert words in in_words(found)[0] and agreement_table(found).notes == in_words(found)


@pytest.mark.parametrize("longer", [0, 1])
def test_verdicts_are_compared_at_the_seeds_that_both_folders_have(paper, longer):
    more = {"arcface": [88.0, 90.0, 92.0, 90.0, 90.1], "softmax": [80.0, 80.1, 79.9, 80.0, 80.0]}
    few = {method: values[:3] for method, values in more.items()}
    assert agreement((records(**more), records(**more)), paper, TASKS).counts["alike"] == 1
    sides = (few, more) if longer else (more, few)
    found = agreement(tuple(records(**side) for side in sides), paper, TASKS)
    assert sum(found.counts.values()) == 0 and found.claims.empty, "three seeds, the same in both"
    assert list(found.shifts["n_first"]) == [len(sides[0]["arcface"])] * 2, "values are compared at all seeds"
    alone = agreement((records(**ABOVE), records(arcface=ABOVE["arcface"])), paper, TASKS)
    assert alone.counts["only first"] == 0, "a method that one folder lacks is a note of `compare`, no difference"


def test_values_that_differ_by_more_than_the_seeds_do_are_named(paper):
    shifted = {"arcface": [value + 5 for value in ABOVE["arcface"]], "softmax": [80.1, 79.9, 80.0, 80.1, 80.1]}
    found = agreement((records(**ABOVE), records(**shifted)), paper, TASKS)
    p = found.shifts.set_index("address")["p"]
    raw = ttest_ind(ABOVE["softmax"], shifted["softmax"], equal_var=False).pvalue
    assert p["arcface/softmax"] == pytest.approx(raw) and p["arcface/arcface"] < 1e-6
    assert "1 of 2 primary metrics differ by more than their seeds do: arcface/arcface (Welch" in in_words(found)[1]
    same = agreement((records(**ABOVE), records(**ABOVE)), paper, TASKS)
    assert "No primary metric of 2 methods differs by more than its seeds do" in in_words(same)[1]


def test_constant_values_differ_where_they_are_not_equal(paper):
    one, other = records(arcface=[90.0] * 3, softmax=[80.0] * 3), records(arcface=[91.0] * 3, softmax=[80.0] * 3)
    assert list(agreement((one, other), paper, TASKS).shifts["p"]) == [0.0, 1.0]


def test_constant_values_that_differ_by_rounding_alone_are_alike(paper):
    here, there = [84.1] * 5, [84.1 * (1 + 2e-7)] * 5
    found = agreement((records(arcface=here), records(arcface=there)), paper, TASKS)
    assert list(found.shifts["p"]) == [1]
