"""Scores from the arrays of a run. numpy and scikit-learn only."""

from collections.abc import Mapping

import numpy as np

ROUNDING = 1e-12


def f1(told: np.ndarray, rare: np.ndarray) -> float:
    """Return F1 in %; 0 where nothing is rare and nothing is told to be."""
    return float(200 * (told & rare).sum() / max(told.sum() + rare.sum(), 1))


def soft_f1(probability: np.ndarray, rare: np.ndarray) -> float:
    """Return ``2 sum(t p) / sum(t + p)`` in %."""
    total = probability.sum() + rare.sum()
    return float(200 * probability[rare].sum() / total) if total else 0.0


def best_threshold(probability: np.ndarray, rare: np.ndarray) -> float:
    """Return the threshold of the best F1, where what lies at or above it is told; the highest one of several."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(rare, probability)
    scores = 2 * precision * recall / np.maximum(precision + recall, ROUNDING)
    return float(thresholds[np.flatnonzero(scores[:-1] >= scores[:-1].max() - ROUNDING)[-1]])


def batch_bias(probability: np.ndarray, rare: np.ndarray, size: int) -> float:
    """Return the soft F1 of all samples less the mean over whole batches of `size`, points."""
    batches = [slice(start, start + size) for start in range(0, len(rare) - size + 1, size)]
    return soft_f1(probability, rare) - float(np.mean([soft_f1(probability[b], rare[b]) for b in batches]))


def measured(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the metrics of `execute.predictions`."""
    label, logs = np.asarray(arrays["label"]), np.asarray(arrays["log_probability"], np.float64)
    right = logs[np.arange(len(label)), label]
    found = {"accuracy": 100 * float((logs.argmax(1) == label).mean()), "nll": -float(right.mean())}
    for name in ("accuracy_1", "accuracy_fgsm", "accuracy_pgd"):
        if name in arrays:
            found[name] = 100 * float((arrays[name] == label).mean())
    if "information" in arrays:
        found["averaging_gain"] = found["accuracy"] - found["accuracy_1"]
        found["information"] = float(np.mean(arrays["information"], dtype=np.float64))
    if "tuning_log_probability" in arrays:
        found |= _rare(np.exp(logs[:, 1]), label == 1, arrays) | {"soft_accuracy": 100 * float(np.exp(right).mean())}
    return found


def _rare(probability: np.ndarray, rare: np.ndarray, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    from sklearn.metrics import average_precision_score

    tuning = np.exp(np.asarray(arrays["tuning_log_probability"], np.float64)[:, 1])
    threshold = best_threshold(tuning, np.asarray(arrays["tuning_label"]) == 1)
    found = {
        "f1": f1(probability > 0.5, rare),
        "f1_tuned": f1(probability >= threshold, rare),
        "average_precision": 100 * float(average_precision_score(rare, probability)),
        "soft_f1": soft_f1(probability, rare),
    }
    sizes = np.asarray(arrays["bias_batches"]).tolist()
    return found | {f"batch_bias_{size}": batch_bias(probability, rare, size) for size in sizes}
