"""Metrics from the answers that a run kept. numpy only."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def rescore(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of ``<kind>_<vectors>`` ``[n]``, classes told or clusters, against ``label`` ``[n]``."""
    label, found = np.asarray(arrays["label"]), {}
    for vectors, prefix in (("document", ""), ("average", "average_")):
        if f"logistic_{vectors}" in arrays:
            for name, kind in (("accuracy", "logistic"), ("knn", "nearest")):
                found[prefix + name] = 100 * float(np.mean(arrays[f"{kind}_{vectors}"] == label))
            table = contingency(arrays[f"cluster_{vectors}"], label)
            found[f"{prefix}purity"] = 100 * float(table.max(1).sum() / table.sum())
            found[f"{prefix}nmi"] = 100 * normalised_information(table)
    return found


def contingency(cluster: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return how many have each cluster (rows) and label (columns), int64."""
    _, rows = np.unique(cluster, return_inverse=True)
    _, columns = np.unique(label, return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1), np.int64)
    np.add.at(table, (rows, columns), 1)
    return table


def normalised_information(table: np.ndarray) -> float:
    """Return the mutual information over the mean of the two entropies; 0 where both are 0."""
    shares = table / table.sum()
    rows, columns = shares.sum(1), shares.sum(0)
    information = entropy(rows) + entropy(columns) - entropy(shares.ravel())
    mean = (entropy(rows) + entropy(columns)) / 2
    return float(max(0.0, information / mean)) if mean else 0.0


def entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
