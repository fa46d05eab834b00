"""Average precision over pooled frames, plain and calibrated, now and ahead."""

from collections.abc import Iterator, Mapping

import numpy as np

from replications.errors import RunFailure


def average_precisions(score: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Return AP and calibrated AP of one action over frames ``[n]``; NaN where no frame is positive.

    ``AP = sum_n (R_n - R_(n-1)) P_n`` over the distinct scores, as scikit-learn has it. Calibrated (De Geest et al.
    2016, Section 5): ``P = w TP / (w TP + FP)``, w the negatives a positive.
    """
    total = int(positive.sum())
    if not total:
        return np.nan, np.nan
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # of each distinct score
    true = np.cumsum(positive[order], dtype=np.float64)[last]
    false = last + 1 - true
    gained = np.diff(true, prepend=0) / total
    found = []
    for weight in (1.0, (len(score) - total) / total):
        weighed = weight * true
        seen = weighed + false
        found.append(float((gained * np.divide(weighed, seen, out=np.ones_like(seen), where=seen > 0)).sum()))
    return found[0], found[1]


def pairs(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield frames ahead (from 0, now), scores and labels ``[n, actions]`` of the frames that are scored.

    A frame ahead must be of the same stream, and valid.
    """
    scores, target, valid, bounds = (arrays[name] for name in ("scores", "target", "valid", "bounds"))
    end = np.repeat(bounds[1:], np.diff(bounds))
    frame = np.arange(len(target))
    for ahead in range(scores.shape[1]):
        now = frame[frame + ahead < end]
        now = now[valid[now + ahead] & valid[now]]
        yield ahead, scores[now, ahead], target[now + ahead]


def evaluate(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, float], list[float]]:
    """Return the metrics, and the AP of each action now, NaN of those without a frame. Raises RunFailure where no frame
    has an action."""
    found, now = {}, []
    for ahead, scores, target in pairs(arrays):
        values = np.array([average_precisions(scores[:, i], target[:, i]) for i in range(target.shape[1])])
        if np.isnan(values).all():
            raise RunFailure("no actions", f"no test frame has an action {ahead} frames ahead: streams are too short")
        mean = 100 * np.nanmean(values, axis=0)
        if ahead:
            found[f"map_ahead_{ahead}"] = float(mean[0])
        else:
            found |= {"map": float(mean[0]), "cap": float(mean[1])}
            now = (100 * values[:, 0]).tolist()
    horizon = arrays["scores"].shape[1] - 1
    if horizon:
        by_frame = [found[f"map_ahead_{ahead}"] for ahead in range(1, horizon + 1)]
        found |= {"map_ahead": float(np.mean(by_frame)), "ahead_fall": by_frame[0] - by_frame[-1]}
    return found, now
