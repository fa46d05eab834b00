"""The metrics again, from the scores of a run, by scikit-learn's precision-recall curves."""

import warnings

import numpy as np


def rescore(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Return every metric that follows from ``scores``, ``target``, ``valid`` and ``bounds``."""
    from sklearn.metrics import average_precision_score

    scores, streams = (
        arrays["scores"].astype(np.float64),
        np.split(np.arange(len(arrays["target"])), arrays["bounds"][1:-1]),
    )
    found = {}
    for ahead in range(scores.shape[1]):
        now = np.concatenate([frames[: max(0, len(frames) - ahead)] for frames in streams])
        now = np.array([frame for frame in now if arrays["valid"][frame] and arrays["valid"][frame + ahead]], int)
        truth, told = arrays["target"][now + ahead], scores[now, ahead]
        actions = [action for action in range(truth.shape[1]) if truth[:, action].any()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of a class that all frames have
            plain = [average_precision_score(truth[:, action], told[:, action]) for action in actions]
        name = f"map_ahead_{ahead}" if ahead else "map"
        found[name] = 100 * float(np.mean(plain))
        if not ahead:
            found["cap"] = 100 * float(np.mean([_calibrated(truth[:, action], told[:, action]) for action in actions]))
    if scores.shape[1] > 1:
        ahead = [found[f"map_ahead_{i}"] for i in range(1, scores.shape[1])]
        found |= {"map_ahead": float(np.mean(ahead)), "ahead_fall": ahead[0] - ahead[-1]}
    return found


def _calibrated(truth: np.ndarray, told: np.ndarray) -> float:
    """Average precision with each precision p as ``w p / (w p + 1 - p)``."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, told)
    weight = (len(truth) - truth.sum()) / truth.sum()
    seen = weight * precision + 1 - precision
    calibrated = np.divide(weight * precision, seen, out=np.ones_like(seen), where=seen > 0)
    return float(-(np.diff(recall) * calibrated[:-1]).sum())
