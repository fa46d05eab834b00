"""COCO's average precision and recall, by faster-coco-eval (equal to pycocotools; a test holds them together)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from replications.errors import RunFailure, UserError
from replications.tasks.detection_2d.data import DetectionSet

# In the order of COCOeval's summary.
SUMMARY = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
WHOLE_RANGE = 1e10


@dataclass(frozen=True)
class Found:
    """Detections of one image: `boxes` ``xyxy`` ``[n, 4]`` in pixels of the original image, `scores`, `labels` ``[n]``.

    `masks` is bool ``[n, height, width]``, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None


class Judge:
    """The objects of some rows of a set, ready to judge detections of them.

    Raises UserError where there is nothing to judge by: no object but crowds.
    """

    def __init__(self, data: DetectionSet, rows: np.ndarray):
        from faster_coco_eval import COCO

        self.data, self.rows = data, rows
        if not ((np.asarray(data.labels[rows]) >= 0) & ~np.asarray(data.crowd[rows])).any():
            raise UserError(f"data set '{data.key}': none of {len(rows)} images to judge by has an object")
        self._truth = {"bbox": COCO(coco_dataset(data, rows, masks=False))}
        if data.masks is not None:
            self._truth["segm"] = COCO(coco_dataset(data, rows, masks=True))

    def judge(self, found: Sequence[Found], kind: str = "bbox") -> tuple[dict[str, float], dict[str, list[float]]]:
        """Return the metrics of one `Found` for each row, in percent, and AP by class.

        What has no object to judge by (no small ones, say) is left out. `kind` is ``bbox`` or ``segm``. Raises
        RunFailure where a detection is not a number.
        """
        from faster_coco_eval import COCOeval_faster

        results = coco_results(self.data, self.rows, found, kind)
        if not results:
            return {name: 0.0 for name in SUMMARY}, {"ap": [0.0] * len(self.data.classes)}
        truth = self._truth[kind]
        evaluator = COCOeval_faster(truth, truth.loadRes(results), kind, print_function=_silent)
        small, large = self.data.area_limits
        evaluator.params.areaRng = [[0, WHOLE_RANGE], [0, small], [small, large], [large, WHOLE_RANGE]]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        precision = evaluator.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class
        by_class = [float(own[own > -1].mean()) if (own > -1).any() else 0.0 for own in precision.transpose(2, 0, 1)]
        stats = evaluator.stats[: len(SUMMARY)]  # the library has further ones behind COCO's twelve
        metrics = {name: 100 * float(value) for name, value in zip(SUMMARY, stats, strict=True) if value >= 0}
        return metrics, {"ap": [100 * value for value in by_class]}


def coco_dataset(data: DetectionSet, rows: np.ndarray, masks: bool) -> dict[str, Any]:
    """Return rows of a set as a COCO annotation dictionary; an image's id is its place in `rows`, from 1."""
    images, annotations = [], []
    for image, row in enumerate(rows, start=1):
        height, width = map(int, data.image_size[row])
        images.append({"id": image, "height": height, "width": width})
        drawn = _encode(data.unpacked_masks(row)) if masks else None
        for place in np.flatnonzero(data.labels[row] >= 0):
            left, top, right, bottom = map(float, data.boxes[row, place])
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": data.category_ids[data.labels[row, place]],
                "bbox": [left, top, right - left, bottom - top],
                "area": float(data.area[row, place]),
                "iscrowd": int(data.crowd[row, place]),
            }
            if drawn is not None:
                annotation["segmentation"] = drawn[place]
            annotations.append(annotation)
    categories = [{"id": i, "name": name} for i, name in zip(data.category_ids, data.classes, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_results(data: DetectionSet, rows: np.ndarray, found: Sequence[Found], kind: str) -> list[dict[str, Any]]:
    """Return detections as COCO's list of results."""
    results = []
    for image, one in enumerate(found, start=1):
        if not (np.isfinite(one.boxes).all() and np.isfinite(one.scores).all()):
            raise RunFailure("diverged", f"a detection in image {data.image_id[rows[image - 1]]} is not a number")
        drawn = _encode(one.masks) if kind == "segm" else [None] * len(one.scores)
        for box, score, label, mask in zip(one.boxes, one.scores, one.labels, drawn, strict=True):
            result = {"image_id": image, "category_id": data.category_ids[label], "score": float(score)}
            if kind == "segm":
                result["segmentation"] = mask
            else:
                left, top, right, bottom = map(float, box)
                result["bbox"] = [left, top, right - left, bottom - top]
            results.append(result)
    return results


def _encode(masks: np.ndarray) -> list[dict[str, Any]]:
    from faster_coco_eval.core import mask

    return mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))


def _silent(*_: object) -> None:
    """The library prints its summary; a run has a progress bar."""
