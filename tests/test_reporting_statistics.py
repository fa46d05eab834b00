"""Intervals and tests: known values, scipy's own tests, and the error rates they promise under the null."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from replications.reporting.power import detectable_effect, equality_margin
from replications.reporting.statistics import (
    ALPHA,
    adjust_family,
    benjamini_hochberg,
    half_width,
    holm,
    outcome,
    weigh,
)

TRIALS = 40_000
NOISE = 3 * np.sqrt(ALPHA * (1 - ALPHA) / TRIALS)  # three standard errors of a simulated rate of 5 %


def effects(n: int, mean: float = 0.0, shape: tuple[int, ...] = (TRIALS,), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((*shape, n)) + mean


def rate(values: np.ndarray, direction: str, delta: float, wrong: int) -> float:
    evidence = weigh(values, direction, delta)
    return float((outcome(evidence.p, evidence.p_against) == wrong).mean())


def test_interval_and_p_values_are_those_of_the_paired_t_test():
    subject, reference = np.array([97.1, 96.4, 97.9, 96.8]), np.array([96.0, 96.1, 96.6, 96.2])
    evidence = weigh(subject - reference, "greater", 0.5)
    test = stats.ttest_rel(subject, reference)
    assert (evidence.lower, evidence.upper) == pytest.approx(test.confidence_interval(0.95))
    assert evidence.p == pytest.approx(test.pvalue)
    below = stats.ttest_rel(subject, reference + 0.5, alternative="less").pvalue
    assert evidence.p_against == pytest.approx(min(1, 2 * below))


def test_equality_is_two_one_sided_tests():
    values = np.array([0.11, -0.05, 0.08, 0.02, -0.03])
    evidence = weigh(values, "equal", 0.3)
    expected = max(
        stats.ttest_1samp(values, -0.3, alternative="greater").pvalue,
        stats.ttest_1samp(values, 0.3, alternative="less").pvalue,
    )
    assert evidence.p == pytest.approx(expected)
    low, high = stats.t.interval(0.90, 4, values.mean(), stats.sem(values))
    assert (evidence.p <= ALPHA) == (low > -0.3 and high < 0.3)


def test_half_width_of_three_seeds_is_2_48_standard_deviations():
    assert half_width(np.array([1.0, 2.0, 3.0])) == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    assert np.isnan(half_width(np.array([1.0])))


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(0, 2))
def test_a_claim_and_its_mirror_image_get_the_same_evidence(values, delta):
    greater = weigh(np.array(values), "greater", delta)
    less = weigh(-np.array(values), "less", delta)
    np.testing.assert_allclose((greater.p, greater.p_against), (less.p, less.p_against))
    np.testing.assert_allclose((greater.lower, greater.upper), (-less.upper, -less.lower))


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=5), st.floats(0.01, 1))
def test_outcome_is_the_interval_rule(values, delta):
    evidence = weigh(np.array(values), "greater", delta)
    if np.isnan(evidence.lower) or min(abs(evidence.lower), abs(evidence.upper - delta)) < 1e-9:
        return
    word = -1 if evidence.upper < delta else 1 if evidence.lower > 0 else 0
    assert outcome(evidence.p, evidence.p_against) == word


def test_effects_that_agree_have_no_interval():
    for values in ([0.5, 0.5, 0.5], [97.3 - 96.3, 96.2 - 95.2, 95.4 - 94.4]):
        evidence = weigh(np.array(values), "greater", 0.1, resolution=1e-12 * 97)
        assert np.isnan([evidence.lower, evidence.upper, evidence.p, evidence.p_against]).all()
        assert outcome(evidence.p, evidence.p_against) == 0


# ------------------------------------------------------------------ error rates under the null


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize(
    ("direction", "mean", "delta", "wrong"),
    [
        ("greater", 0.0, 1.0, 1),  # no effect, called reproduced
        ("less", 0.0, 1.0, 1),
        ("greater", 1.0, 1.0, -1),  # an effect of delta, called contradicted
        ("greater", 2.0, 2.0, -1),
        ("equal", 1.0, 1.0, 1),  # on the margin, called equal
        ("equal", 3.0, 3.0, 1),
        ("equal", 1.0, 1.0, -1),  # on the margin, called unequal
        ("equal", 0.0, 0.02, -1),  # equal, with a margin far below the noise
    ],
)
def test_a_wrong_verdict_comes_at_most_five_times_in_a_hundred(n, direction, mean, delta, wrong):
    assert rate(effects(n, mean), direction, delta, wrong) <= ALPHA + NOISE


@pytest.mark.parametrize("n", [3, 5])
def test_directional_verdicts_keep_half_of_that(n):
    assert rate(effects(n, 0.0), "greater", 50.0, 1) == 0  # an effect far below delta is not called reproduced
    assert rate(effects(n, 0.0), "greater", 0.3, 1) <= ALPHA / 2 + NOISE
    assert rate(effects(n, 1.0), "greater", 1.0, -1) == pytest.approx(ALPHA / 2, abs=NOISE)


@pytest.mark.parametrize("n", [3, 5])
def test_rounded_metrics_do_not_break_the_rate(n):
    for step in (0.2, 0.5, 1.0, 2.0):  # the resolution of a small test set, in standard deviations
        values = np.round(effects(n) / step) * step
        assert rate(values, "greater", 0.0, 1) + rate(values, "greater", 0.0, -1) <= ALPHA + NOISE


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_a_paper_gets_a_wrong_verdict_at_most_five_times_in_a_hundred(n, shared):
    """Six claims of one paper, each at its own worst truth, independent or sharing a reference's noise."""
    directions = np.array(["greater", "greater", "greater", "greater", "equal", "equal"])
    delta = np.array([0.3, 1.0, 0.3, 1.0, 1.0, 1.0])
    truth = np.array([0.0, 0.0, 0.3, 1.0, 1.0, -1.0])
    wrong = np.array([1, 1, -1, -1, 1, 1])
    own = effects(n, shape=(TRIALS, 6), seed=1)
    common = effects(n, shape=(TRIALS, 1), seed=2)
    values = truth[:, None] + np.sqrt(1 - shared) * own + np.sqrt(shared) * common
    p, p_against, raw = (np.empty((TRIALS, 6)) for _ in range(3))
    for i, direction in enumerate(directions):
        evidence = weigh(values[:, i], direction, delta[i])
        p[:, i], p_against[:, i] = evidence.p, evidence.p_against
        raw[:, i] = outcome(evidence.p, evidence.p_against)
    adjusted = adjust_family(p, p_against, directions == "equal")
    kept = np.where(raw == 1, adjusted[0], adjusted[1]) <= ALPHA
    assert ((raw == wrong).any(1)).mean() > ALPHA + NOISE, "without adjustment the family errs too often"
    assert ((raw == wrong) & kept).any(1).mean() <= ALPHA + NOISE


# ------------------------------------------------------------------ Holm and power


def test_holm_known_values():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1.0, 1.0])
    batch = np.random.default_rng(0).random((5, 4))
    np.testing.assert_allclose(holm(batch), [holm(row) for row in batch])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_lowers(p):
    adjusted = holm(np.array(p))
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


@pytest.mark.parametrize("n", [3, 5, 8])
def test_an_equality_claim_alone_errs_at_most_five_times_in_a_hundred(n):
    """With the truth on the margin either decision is wrong. What is decided is worked out from scipy's tests alone."""
    values = effects(n, 1.0, seed=n)
    evidence = weigh(values, "equal", 1.0)
    p, against = (q[:, 0] for q in adjust_family(evidence.p[:, None], evidence.p_against[:, None], np.array([True])))
    sides = [stats.ttest_1samp(values, m, axis=1, alternative=a).pvalue for m, a in ((-1, "greater"), (1, "less"))]
    inside = np.maximum(*sides) <= 0.025
    outside = np.abs(values.mean(1)) - stats.t.ppf(0.9875, n - 1) * stats.sem(values, axis=1) >= 1
    assert ((p <= ALPHA) == inside).all() and ((against <= ALPHA) == outside).all()
    assert (inside | outside).mean() <= ALPHA
    raw = outcome(evidence.p, evidence.p_against)
    assert (raw != 0).mean() > ALPHA + NOISE, "not doubled, it errs too often"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_benjamini_and_hochberg_are_scipys(p):
    np.testing.assert_allclose(benjamini_hochberg(np.array(p)), stats.false_discovery_control(p), rtol=1e-9)


def test_one_directional_claim_needs_no_adjustment():
    p, against = adjust_family(np.array([0.03]), np.array([0.5]), np.array([False]))
    assert (p, against) == (0.03, 0.5)


def test_an_equality_claim_counts_twice():
    """Its raw test takes the whole 5 %; adjusted, statements and denials get half of it each."""
    p, against = adjust_family(np.array([0.01, 0.01]), np.array([0.5, 0.01]), np.array([True, False]))
    assert p == pytest.approx([0.02, 0.02]) and against == pytest.approx([1.0, 0.02])


@pytest.mark.parametrize("n", [3, 5, 10])
def test_stated_power_is_the_power(n):
    found = weigh(effects(n, detectable_effect(n)), "greater", 0.0).p <= ALPHA
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    proved = weigh(effects(n), "equal", equality_margin(n)).p <= ALPHA
    assert proved.mean() == pytest.approx(0.8, abs=0.01)
    alone = weigh(effects(n), "equal", equality_margin(n, alpha=ALPHA / 2)).p <= ALPHA / 2
    assert alone.mean() == pytest.approx(0.8, abs=0.01)
