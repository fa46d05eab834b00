"""Scores from predictions: accuracies and part IoU. numpy only."""

from collections.abc import Sequence

import numpy as np


def accuracies(predicted: np.ndarray, label: np.ndarray, copy: np.ndarray) -> dict[str, float]:
    """Return the accuracies of predictions [S] in %; `copy` [S] marks clouds that equal a training cloud.

    ``accuracy`` is over clouds, not over batches' means (which a short last batch would bend).
    """
    right = predicted == label
    own = {"accuracy": 100 * right[~copy].mean(), "class_accuracy": np.mean(by_class(predicted, label, copy))}
    if copy.any():
        own["accuracy_all"] = 100 * right.mean()
    return {name: float(value) for name, value in own.items()}


def by_class(predicted: np.ndarray, label: np.ndarray, copy: np.ndarray) -> list[float]:
    """Return each class's accuracy in %, in the classes' order."""
    own = label[~copy]
    right = (predicted == label)[~copy]
    return [float(100 * right[own == c].mean()) for c in np.unique(own)]


def shape_ious(
    predicted: np.ndarray, part: np.ndarray, label: np.ndarray, class_parts: Sequence[Sequence[int]]
) -> np.ndarray:
    """Return the mean IoU of each cloud over the parts of its class, in [0, 1]; `predicted` and `part` are [S, P].

    As in the ShapeNet part benchmark: a part that is neither there nor predicted has IoU 1. Points with part -1 do not
    count.
    """
    found = np.empty(len(part))
    for s, (p, t) in enumerate(zip(predicted, part, strict=True)):
        known = t >= 0
        ious = []
        for number in class_parts[label[s]]:
            mine, true = (p == number) & known, t == number
            union = (mine | true).sum()
            ious.append((mine & true).sum() / union if union else 1.0)
        found[s] = np.mean(ious)
    return found


def part_scores(
    predicted: np.ndarray, part: np.ndarray, label: np.ndarray, class_parts: Sequence[Sequence[int]], pooled: bool
) -> dict[str, float]:
    """Return part scores in %. `pooled`: scenes, whose IoU is over all points of the set together, mean over parts."""
    known = part >= 0
    scores = {"part_accuracy": float(100 * (predicted == part)[known].mean())}
    if pooled:
        ious = []
        for number in sorted({n for numbers in class_parts for n in numbers}):
            union = ((predicted == number) | (part == number))[known].sum()
            if union:
                ious.append(((predicted == number) & (part == number))[known].sum() / union)
        return scores | {"part_miou": float(100 * np.mean(ious))}
    ious = shape_ious(predicted, part, label, class_parts)
    classes = [ious[label == c].mean() for c in np.unique(label)]
    return scores | {"part_miou": float(100 * ious.mean()), "part_class_miou": float(100 * np.mean(classes))}
