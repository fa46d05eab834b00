"""From the results of classes to the numbers, curves and tables of a record."""

from typing import Any

import numpy as np

from replications.records import Curve
from replications.tasks.detection_3d.evaluation import ClassResult, Truth, mean_precision, mean_recall

THRESHOLDS = {"25": 0.25, "50": 0.5}
CURVE_POINTS = 101

Results = dict[float, list[ClassResult | None]]


def metrics_of(results: Results, distance: np.ndarray, truth: Truth) -> dict[str, float]:
    """Return mAP and AR, and how they change with the distance of an object's points from its centre."""
    metrics = {}
    for name, value in THRESHOLDS.items():
        metrics |= {f"mAP{name}": mean_precision(results[value]), f"AR{name}": mean_recall(results[value])}
    rows = [(distance[truth.label == c].mean(), 100 * r.average_precision) for c, r in enumerate(results[0.25]) if r]
    x, y = np.array(rows).T
    spread = float(((x - x.mean()) ** 2).sum())
    metrics["ap25_distance_slope"] = float(((x - x.mean()) * y).sum()) / spread if spread > 0 else 0.0
    there = truth.label >= 0
    found = np.any([r.found for r in results[0.25] if r], axis=0)[there]
    far = distance[there] > np.median(distance[there])
    halves = [100 * float(found[part].mean()) if part.any() else 0.0 for part in (far, ~far)]
    metrics["recall_far_less_near"] = halves[0] - halves[1]
    return metrics


def mean_curve(results: list[ClassResult | None], threshold: float) -> Curve:
    """Return the precision at each recall (the best one at that recall or above), mean over the classes."""
    grid = np.linspace(0, 1, CURVE_POINTS)
    curves = []
    for result in filter(None, results):
        at = np.searchsorted(result.recall, grid, side="left")
        envelope = np.append(np.maximum.accumulate(result.precision[::-1])[::-1], 0.0)
        curves.append(envelope[np.minimum(at, len(envelope) - 1)])
    return Curve(
        x_label="Recall", y_label=f"Precision, IoU above {threshold:g}",
        x=grid.tolist(), y=np.mean(curves, axis=0).tolist(),
    )  # fmt: skip


def class_table(classes: tuple[str, ...], results: Results, distance: np.ndarray, truth: Truth) -> list[dict[str, Any]]:
    """One row a class with objects: its name, number of objects, distance to the centre, AP."""
    return [
        {
            "name": name,
            "objects": result.objects,
            "distance": float(distance[truth.label == label].mean()),
            "ap25": 100 * result.average_precision,
            "ap50": 100 * results[0.5][label].average_precision,
        }
        for label, (name, result) in enumerate(zip(classes, results[0.25], strict=True))
        if result is not None
    ]
