"""What a run keeps for pictures: detections and attention of a few test images, and where its queries put boxes."""

import numpy as np
import torch

from replications.layers.detection.model import Detections, Detector
from replications.tasks.detection_2d.stages import Setup

MOST_SHOWN = 30  # detections of an image


def traces(detector: Detector, drawn: list[Detections], rows: np.ndarray, setup: Setup) -> dict[str, np.ndarray]:
    """Return small arrays about the first test images: ``row`` ``[n]`` of the set, ``boxes`` ``[n, k, 4]`` (``xyxy``,
    fractions), ``scores``, ``labels``; the method's `Detector.look`; and ``query_boxes`` ``[images, queries, 4]``.
    """
    count = min(setup.options.drawn, len(rows))
    if not count:
        return {}
    shown = setup.shown(setup.test, rows[:count])
    with torch.no_grad():
        found = detector.detect(shown)
        looked = detector.look(shown)
    order = found.scores.argsort(dim=1, descending=True)[:, :MOST_SHOWN]
    arrays = {
        "row": rows[:count],
        "boxes": _small(found.boxes.gather(1, order[..., None].expand(-1, -1, 4))),
        "scores": _small(found.scores.gather(1, order)),
        "labels": found.labels.gather(1, order).cpu().numpy().astype(np.int16),
        **{name: _small(value) for name, value in looked.items()},
    }
    if drawn[0].layers and len({own.boxes.shape[1] for own in drawn}) == 1:
        arrays["query_boxes"] = _small(torch.cat([own.boxes for own in drawn]))
    return arrays


def _small(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy().astype(np.float16)
