"""Metrics recomputed from what a run left beside its record."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def percent_right(told: np.ndarray, label: np.ndarray) -> float:
    """Return how many of ``[N]`` predictions are right, in per cent."""
    return 100 * float(np.mean(told == label))


def rescore(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Return the accuracies that the stored predictions give: keys ``told_<metric>``, and ``top_classes``."""
    label = np.asarray(arrays["test_label"])
    metrics = {
        name.removeprefix("told_"): percent_right(np.asarray(told), label)
        for name, told in arrays.items()
        if name.startswith("told_")
    }
    if "top_classes" in arrays:
        metrics["top5"] = 100 * float(np.mean((np.asarray(arrays["top_classes"]) == label[:, None]).any(1)))
    return metrics
