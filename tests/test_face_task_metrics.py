"""LFW View 2 figures: against brute force, scikit-learn and the numbers the protocol itself fixes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from replications.tasks.face_verification.metrics import (
    Calibration,
    auc,
    best_threshold,
    equal_error_rate,
    fold_accuracies,
    operating_points,
    standard_error,
    tar_at_far,
    verification_metrics,
)


def lfw_like(seed: int = 0, separation: float = 1.5, decimals: int | None = None):
    """Ten folds of 300 matched and 300 mismatched pairs, as in pairs.txt."""
    rng = np.random.default_rng(seed)
    same = np.tile(np.repeat([True, False], 300), 10)
    fold = np.repeat(np.arange(1, 11), 600)
    score = rng.normal(size=6000) + separation * same
    return (score if decimals is None else score.round(decimals)), same, fold


scored_pairs = st.lists(st.tuples(st.integers(-6, 6), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({same for _, same in pairs}) == 2
)


def accuracy(score, same, threshold):
    return np.mean((score > threshold) == same)


@given(scored_pairs)
def test_threshold_is_as_good_as_any_threshold(pairs):
    score, same = (np.array(column) for column in zip(*pairs, strict=True))
    tried = np.concatenate((score - 0.5, score + 0.5, [-99, 99]))
    best = max(accuracy(score, same, t) for t in tried)
    assert accuracy(score, same, best_threshold(score, same)) == best


def test_threshold_is_the_middle_of_the_middle_best_interval():
    assert best_threshold(np.array([0.0, 1.0, 4.0]), np.array([False, False, True])) == 2.5
    # Right at 0.5, 2.5 and 4.5: three times 4 of 6; the middle one is taken.
    score, same = np.array([0.0, 1, 2, 3, 4, 5]), np.array([False, True, False, True, False, True])
    assert best_threshold(score, same) == 2.5
    assert best_threshold(np.array([1.0, 2.0]), np.array([True, True])) < 1.0
    assert best_threshold(np.array([1.0, 2.0]), np.array([False, False])) > 2.0


def test_threshold_separates_neighbouring_floats():
    low = 1.0
    high = np.nextafter(low, 2.0)
    threshold = best_threshold(np.array([low, high]), np.array([False, True]))
    assert low <= threshold < high


def test_fold_accuracies_against_a_plain_loop():
    score, same, fold = lfw_like(decimals=1)
    expected = []
    for k in range(1, 11):
        train = fold != k
        candidates = np.arange(score.min() - 0.05, score.max() + 0.1, 0.1)
        right = [accuracy(score[train], same[train], t) for t in candidates]
        best = np.flatnonzero(np.array(right) == max(right))
        threshold = candidates[best[(len(best) - 1) // 2]]
        expected.append(100 * accuracy(score[fold == k], same[fold == k], threshold))
    folds, accuracies, _ = fold_accuracies(score, same, fold)
    assert folds == list(range(1, 11))
    np.testing.assert_allclose(accuracies, expected)


def test_a_fold_has_no_part_in_its_own_threshold():
    score, same, fold = lfw_like()
    before = fold_accuracies(score, same, fold)[2][2]
    changed = np.where(fold == 3, score + 100.0, score)
    flipped = np.where(fold == 3, ~same, same)
    after = fold_accuracies(changed, flipped, fold)[2]
    assert after[2] == before
    assert after[3] != fold_accuracies(score, same, fold)[2][3]


def test_mean_and_standard_error_are_those_of_the_protocol():
    # The ten fold accuracies of the released SphereFace-20 model: 99.30 +/- 0.11 (its README,
    # sphereface.yaml).
    folds = [99.33, 99.17, 98.83, 99.50, 99.17, 99.83, 99.17, 98.83, 99.83, 99.33]
    assert round(float(np.mean(folds)), 2) == 99.30
    assert round(standard_error(folds), 2) == 0.11
    assert standard_error(folds) == pytest.approx(np.sqrt(sum((x - np.mean(folds)) ** 2 for x in folds) / 90))
    assert standard_error([99.0]) is None


def test_perfect_recogniser_that_disagrees_with_the_seven_wrong_labels():
    same = np.tile(np.repeat([True, False], 300), 10)
    fold = np.repeat(np.arange(1, 11), 600)
    error = np.zeros(6000, bool)
    for k, count in ((1, 3), (5, 3), (7, 1)):
        error[np.flatnonzero((fold == k) & same)[:count]] = True
    score = np.where(same & ~error, 0.9, 0.1) + np.random.default_rng(0).uniform(-0.05, 0.05, 6000)
    result = verification_metrics(score, same, fold, error)
    assert result.metrics["accuracy"] == pytest.approx(100 * 5993 / 6000)
    assert round(result.metrics["accuracy"], 3) == 99.883
    assert result.metrics["accuracy_clean"] == 100.0
    assert result.accuracy[0] == 99.5 and result.accuracy[1] == 100.0


@settings(max_examples=60)
@given(scored_pairs)
def test_auc_equals_sklearn_and_the_rank_statistic(pairs):
    score, same = (np.array(column) for column in zip(*pairs, strict=True))
    matched, mismatched = score[same][:, None], score[~same][None]
    ranks = (matched > mismatched).mean() + 0.5 * (matched == mismatched).mean()
    assert auc(score, same) == pytest.approx(roc_auc_score(same, score))
    assert auc(score, same) == pytest.approx(ranks)


@given(scored_pairs)
def test_operating_points_equal_sklearn(pairs):
    score, same = (np.array(column) for column in zip(*pairs, strict=True))
    false_accepts, true_accepts = operating_points(score, same)
    far, tar, _ = roc_curve(same, score, drop_intermediate=False)
    np.testing.assert_allclose(false_accepts / (~same).sum(), far)
    np.testing.assert_allclose(true_accepts / same.sum(), tar)


@given(scored_pairs, st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 1.0]))
def test_tar_at_far_is_the_best_threshold_within_the_limit(pairs, limit):
    score, same = (np.array(column) for column in zip(*pairs, strict=True))
    thresholds = np.concatenate((score - 0.5, [99]))
    allowed = [t for t in thresholds if np.mean(score[~same] > t) <= limit + 1e-12]
    assert tar_at_far(score, same, limit) == max(np.mean(score[same] > t) for t in allowed)


def test_tar_at_far_allows_exactly_three_of_three_thousand():
    # 1e-3 * 3000 is 3.0000000000000004 or less in floats: the third false accept must be allowed, the fourth
    # not.
    mismatched = np.arange(3000.0)
    matched = np.array([2996.5, 2995.5])
    score, same = np.concatenate((mismatched, matched)), np.arange(3002) >= 3000
    assert tar_at_far(score, same, 1e-3) == 0.5
    assert tar_at_far(score, same, 1e-2) == 1.0


@given(scored_pairs)
def test_equal_error_rate_lies_on_the_roc_where_both_errors_meet(pairs):
    score, same = (np.array(column) for column in zip(*pairs, strict=True))
    rate = equal_error_rate(score, same)
    false_accepts, true_accepts = operating_points(score, same)
    far, reject = false_accepts / false_accepts[-1], 1 - true_accepts / true_accepts[-1]
    # Along the ROC, parametrised by far - reject (strictly rising), far at the crossing is the rate, and so
    # is reject.
    assert np.interp(0.0, far - reject, far) == pytest.approx(rate)
    assert np.interp(0.0, far - reject, reject) == pytest.approx(rate)


def test_known_gaussian_figures():
    # Two unit normals 2 apart: AUC = Phi(2 / sqrt 2) = 0.9214, EER = Phi(-1) = 15.87 %.
    score, same, fold = lfw_like(separation=2.0)
    result = verification_metrics(score, same, fold, np.zeros(6000, bool))
    assert result.metrics["auc"] == pytest.approx(0.9214, abs=0.01)
    assert result.metrics["eer"] == pytest.approx(15.87, abs=1.5)
    assert result.metrics["accuracy"] == pytest.approx(100 - 15.87, abs=1.5)


def test_recognisers_of_different_folds_are_never_compared():
    score, same, fold = lfw_like()
    calibration_score, calibration_same, _ = lfw_like(seed=1)
    plain = Calibration(calibration_score, calibration_same, fold)
    shift = 50.0 * fold
    shifted = Calibration(calibration_score + shift, calibration_same, fold)
    error = np.zeros(6000, bool)
    one = verification_metrics(score, same, fold, error, plain)
    other = verification_metrics(score + shift, same, fold, error, shifted)
    for name, value in one.metrics.items():
        assert other.metrics[name] == pytest.approx(value), name
    np.testing.assert_allclose(one.tar, other.tar)
    pooled = verification_metrics(score + shift, same, fold, error).metrics
    assert pooled["auc"] < one.metrics["auc"] - 0.1


def test_calibration_of_a_fold_decides_its_threshold():
    score, same, fold = lfw_like()
    calibration = Calibration(np.array([0.0, 1.0, 4.0, 6.0]), np.array([False, True] * 2), np.array([1, 1, 2, 2]))
    part = fold <= 2
    _, _, thresholds = fold_accuracies(score[part], same[part], fold[part], calibration)
    assert thresholds == [0.5, 5.0]
    with pytest.raises(ValueError, match="fold 3"):
        fold_accuracies(score, same, fold, calibration)


def test_one_fold_has_no_standard_error_and_needs_a_calibration():
    score, same, fold = lfw_like()
    one = fold == 1
    calibration = Calibration(score[~one], same[~one], np.ones((~one).sum(), int))
    result = verification_metrics(score[one], same[one], fold[one], np.zeros(600, bool), calibration)
    assert "accuracy_se" not in result.metrics and result.folds == [1]
    with pytest.raises(ValueError):
        verification_metrics(score[one], same[one], fold[one], np.zeros(600, bool))


def test_roc_curve_is_short_monotone_and_ends_at_one():
    result = verification_metrics(*lfw_like(), np.zeros(6000, bool))
    assert len(result.far) == len(result.tar) <= 200
    assert np.all(np.diff(result.far) > 0) and np.all(np.diff(result.tar) >= 0)
    assert result.far[0] == 0.0 and result.far[-1] == 1.0 and result.tar[-1] == 1.0


def test_ties_between_matched_and_mismatched_do_not_favour_either():
    same = np.tile([True, False], 50)
    assert auc(np.zeros(100), same) == 0.5
    assert equal_error_rate(np.zeros(100), same) == 0.5
    assert tar_at_far(np.zeros(100), same, 0.5) == 0.0
