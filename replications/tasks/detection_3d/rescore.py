"""The metrics of a finished run, recomputed from the detections beside its record."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from replications.tasks.detection_3d.evaluation import Detections, Truth, evaluate
from replications.tasks.detection_3d.scores import metrics_of


def unpack(arrays: Mapping[str, Any]) -> tuple[Detections, Truth]:
    """Return the detections and the truth that a run left in its ``arrays.npz``."""
    truth = Truth(arrays["true_boxes"].astype(np.float64), arrays["true_label"].astype(np.int64))
    scene, boxes, scores = (arrays[f"detected_{name}"] for name in ("scene", "boxes", "scores"))
    counts = np.bincount(scene, minlength=len(truth.label))
    place = np.arange(len(scene)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(truth.label), max(1, counts.max()))
    kept = np.zeros(shape, bool)
    kept[scene, place] = True
    all_boxes, all_scores = np.zeros((*shape, 7)), np.zeros((*shape, scores.shape[1]))
    all_boxes[scene, place], all_scores[scene, place] = boxes, scores
    return Detections(all_boxes, all_scores, kept), truth


def rescore(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that detections decide, by the names of the record; those of votes need the network."""
    detections, truth = unpack(arrays)
    results = evaluate(detections, truth, detections.scores.shape[-1])
    return metrics_of(results, arrays["distance"], truth)
