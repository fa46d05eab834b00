"""Average precision of boxes in space, as PASCAL VOC 2010 has it: the area under the precision-recall curve.

A proposal counts for every class, with its objectness times its class probability (the authors' "per-class
proposals"). Detections of a class are taken by falling score; one is true where its best box of that class overlaps by
more than the threshold and no better-scored detection has taken that box before.
"""

from dataclasses import dataclass

import numpy as np

from replications.layers.rooms.boxes import iou_matrix


@dataclass(frozen=True)
class Detections:
    """Proposals of all scenes: `boxes` ``[s, n, 7]``, `scores` ``[s, n, classes]``, `kept` bool ``[s, n]``."""

    boxes: np.ndarray
    scores: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True)
class Truth:
    """The objects of all scenes: `boxes` ``[s, m, 7]``, `label` ``[s, m]``, −1 where there is no object."""

    boxes: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class ClassResult:
    """One class at one threshold. `recall` and `precision` are those after each detection, best score first."""

    objects: int
    average_precision: float
    recall: np.ndarray
    precision: np.ndarray
    found: np.ndarray  # bool [s, m]: objects of the class that some detection has taken

    @property
    def final_recall(self) -> float:
        return float(self.recall[-1]) if len(self.recall) else 0.0


def overlaps(detections: Detections, truth: Truth) -> np.ndarray:
    """Return the IoU ``[s, n, m]`` of kept proposals with objects; 0 where either is not there."""
    there = truth.label >= 0
    boxes = np.where(there[..., None], truth.boxes, _far_away())
    proposals = np.where(detections.kept[..., None], detections.boxes, -_far_away())
    return iou_matrix(proposals, boxes)


def _far_away() -> np.ndarray:
    return np.array([1e6, 1e6, 1e6, 0, 0, 0, 0], np.float64)


def evaluate_class(
    iou: np.ndarray, detections: Detections, truth: Truth, label: int, threshold: float
) -> ClassResult | None:
    """Return the result of a class at an IoU threshold; None where no scene has an object of the class."""
    wanted = truth.label == label
    objects = int(wanted.sum())
    if not objects:
        return None
    scene, proposal = np.nonzero(detections.kept)
    scores = detections.scores[scene, proposal, label]
    order = np.argsort(-scores, kind="stable")
    scene, proposal = scene[order], proposal[order]
    own = np.where(wanted[scene], iou[scene, proposal], -1.0)
    best = own.argmax(1) if len(own) else np.zeros(0, np.int64)
    overlap = own[np.arange(len(own)), best]
    candidates = np.flatnonzero(overlap > threshold)
    _, first = np.unique(scene[candidates] * wanted.shape[1] + best[candidates], return_index=True)
    hit = np.zeros(len(order), bool)
    hit[candidates[first]] = True
    found = np.zeros(wanted.shape, bool)
    found[scene[hit], best[hit]] = True
    true = np.cumsum(hit)
    recall, precision = true / objects, true / np.arange(1, len(hit) + 1)
    return ClassResult(objects, average_precision(recall, precision), recall, precision, found)


def average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Return the area under the precision-recall curve, precision made falling from the right (VOC 2010)."""
    if not len(recall):
        return 0.0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return float((steps * envelope).sum())


def evaluate(
    detections: Detections, truth: Truth, classes: int, thresholds: tuple[float, ...] = (0.25, 0.5)
) -> dict[float, list[ClassResult | None]]:
    """Return the results by threshold and class."""
    iou = overlaps(detections, truth)
    return {
        threshold: [evaluate_class(iou, detections, truth, label, threshold) for label in range(classes)]
        for threshold in thresholds
    }


def mean_precision(results: list[ClassResult | None]) -> float:
    """Return mAP in % over the classes that have objects."""
    return 100.0 * float(np.mean([result.average_precision for result in results if result is not None]))


def mean_recall(results: list[ClassResult | None]) -> float:
    """Return AR in %: the recall of all detections, mean over the classes that have objects."""
    return 100.0 * float(np.mean([result.final_recall for result in results if result is not None]))
