"""Metrics derived again from what a run left in its arrays."""

from collections.abc import Mapping
from typing import Any

from replications.tasks.point_classification.metrics import accuracies


def rescore(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Return the accuracies of a run's predictions."""
    return accuracies(arrays["predicted"], arrays["label"], arrays["copy"])
