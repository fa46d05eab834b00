"""The numbers of LFW View 2 from pair scores: accuracy with its standard error, ROC, AUC, EER, TAR at a FAR.

A score is higher for more similar images; a pair is called the same person where ``score > threshold``.

**Accuracy.** For each fold the threshold is fitted on other data and applied to that fold's pairs: on the
pairs of the other nine folds where one recogniser scored them all, or on that fold's own `Calibration` where
each fold has its own recogniser. Reported is the mean of the fold accuracies and the standard error of
that mean, the sample standard deviation (n - 1) over the folds divided by the root of their number.

**ROC and metrics derived from it.** Scores are pooled where one recogniser made them all; with a recogniser a
fold, their scores are not comparable, so every figure is computed within the fold and averaged (for the
curve: TAR averaged at each FAR). The known label errors stay in every figure but ``accuracy_clean``.
"""

from dataclasses import dataclass

import numpy as np

CURVE_POINTS = 200
PERCENT = 100.0


@dataclass(frozen=True)
class Calibration:
    """Pairs to fit each fold's threshold on, scored by that fold's recogniser: ``[C]`` each, `fold` 1..10."""

    score: np.ndarray
    same: np.ndarray
    fold: np.ndarray


@dataclass(frozen=True)
class Verification:
    """The metrics of a verifier, its accuracy (%) and threshold by fold, its ROC (FAR, TAR in [0, 1])."""

    metrics: dict[str, float]
    folds: list[int]
    accuracy: list[float]
    threshold: list[float]
    far: list[float]
    tar: list[float]


def best_threshold(score: np.ndarray, same: np.ndarray) -> float:
    """Return the threshold with the most pairs right; exact: every interval between neighbouring scores is
    tried.

    The threshold is the middle of its interval (one below the lowest or above the highest score where
    calling all pairs alike is best). Where several intervals are equally good it is the middle one of them,
    and of two middles the lower.
    """
    values, place = np.unique(np.asarray(score, np.float64), return_inverse=True)
    matched = np.bincount(place, weights=np.asarray(same, np.float64), minlength=len(values))
    mismatched = np.bincount(place, minlength=len(values)) - matched
    # Interval j is below values[j]: mismatched pairs before j and matched pairs from j on are right.
    correct = np.concatenate(([0.0], np.cumsum(mismatched))) + matched.sum()
    correct -= np.concatenate(([0.0], np.cumsum(matched)))
    best = np.flatnonzero(correct == correct.max())
    j = int(best[(len(best) - 1) // 2])
    if j == 0:
        return float(values[0] - 1.0)
    if j == len(values):
        return float(values[-1] + 1.0)
    low, high = float(values[j - 1]), float(values[j])
    middle = low + (high - low) / 2
    return middle if middle < high else low


def fold_accuracies(
    score: np.ndarray, same: np.ndarray, fold: np.ndarray, calibration: Calibration | None = None
) -> tuple[list[int], list[float], list[float]]:
    """Return the folds, and for each its accuracy (%) and the threshold, which its own pairs had no part in.

    Raises ValueError where there is nothing else to fit a threshold on.
    """
    folds = [int(k) for k in np.unique(fold)]
    source = Calibration(score, same, fold) if calibration is None else calibration
    accuracies, thresholds = [], []
    for k in folds:
        fitting = source.fold != k if calibration is None else source.fold == k
        if not fitting.any():
            raise ValueError(f"no pairs to fit the threshold of fold {k} on")
        threshold = best_threshold(source.score[fitting], source.same[fitting])
        tested = fold == k
        right = (score[tested] > threshold) == same[tested]
        accuracies.append(PERCENT * float(right.mean()))
        thresholds.append(threshold)
    return folds, accuracies, thresholds


def standard_error(values: list[float]) -> float | None:
    """Return the sample standard deviation (n - 1) over the root of n; None for fewer than two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def operating_points(score: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return counts of false and of true accepts, rising from (0, 0), one point for each distinct score."""
    values, place = np.unique(-np.asarray(score, np.float64), return_inverse=True)
    matched = np.bincount(place, weights=np.asarray(same, np.float64), minlength=len(values))
    mismatched = np.bincount(place, minlength=len(values)) - matched
    zero = np.zeros(1)
    return np.concatenate((zero, np.cumsum(mismatched))), np.concatenate((zero, np.cumsum(matched)))


def auc(score: np.ndarray, same: np.ndarray) -> float:
    """Return the area under the ROC: how often a matched pair outscores a mismatched one, ties as half."""
    false_accepts, true_accepts = operating_points(score, same)
    area = np.trapezoid(true_accepts, false_accepts)
    return float(area / (false_accepts[-1] * true_accepts[-1]))


def equal_error_rate(score: np.ndarray, same: np.ndarray) -> float:
    """Return the rate in [0, 1] where false accepts equal false rejects, linear between points of the ROC."""
    false_accepts, true_accepts = operating_points(score, same)
    far, reject = false_accepts / false_accepts[-1], 1.0 - true_accepts / true_accepts[-1]
    gap = far - reject
    after = int(np.argmax(gap >= 0))
    before = after - 1
    step = -gap[before] / (gap[after] - gap[before])
    return float(far[before] + step * (far[after] - far[before]))


def tar_at_far(score: np.ndarray, same: np.ndarray, limit: float | np.ndarray) -> np.ndarray:
    """Return the largest TAR in [0, 1] of any threshold whose FAR is at most `limit`: no interpolation."""
    false_accepts, true_accepts = operating_points(score, same)
    # The allowance is for rounding of limit * count just below a whole number.
    allowed = np.asarray(limit) * false_accepts[-1] + 1e-9
    last = np.searchsorted(false_accepts, allowed, side="right") - 1
    return true_accepts[last] / true_accepts[-1]


def verification_metrics(
    score: np.ndarray,
    same: np.ndarray,
    fold: np.ndarray,
    error: np.ndarray,
    calibration: Calibration | None = None,
) -> Verification:
    """Return all figures of one verifier's scores ``[P]``; `error` marks the known wrong labels.

    Percent, except ``auc`` in [0, 1]. ``accuracy_se`` is left out where fewer than two folds were scored.
    """
    same, error = np.asarray(same, bool), np.asarray(error, bool)
    folds, accuracies, thresholds = fold_accuracies(score, same, fold, calibration)
    clean = fold_accuracies(score[~error], same[~error], fold[~error], calibration)[1]
    comparable = [np.ones(len(score), bool)] if calibration is None else [fold == k for k in folds]

    def averaged(figure, *arguments):
        return np.mean([figure(score[part], same[part], *arguments) for part in comparable], axis=0)

    mismatched = min(int((~same[part]).sum()) for part in comparable)
    far = np.concatenate(([0.0], np.geomspace(1.0 / mismatched, 1.0, CURVE_POINTS - 1)))
    metrics = {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_clean": float(np.mean(clean)),
        "auc": float(averaged(auc)),
        "eer": PERCENT * float(averaged(equal_error_rate)),
        "tar_far1e2": PERCENT * float(averaged(tar_at_far, 1e-2)),
        "tar_far1e3": PERCENT * float(averaged(tar_at_far, 1e-3)),
    }
    error_of_mean = standard_error(accuracies)
    if error_of_mean is not None:
        metrics["accuracy_se"] = error_of_mean
    tar = averaged(tar_at_far, far)
    return Verification(metrics, folds, accuracies, thresholds, far.tolist(), tar.tolist())
