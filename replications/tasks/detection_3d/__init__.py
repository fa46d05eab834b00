"""Detection in space: boxes with a heading and a class around the objects of a point cloud.

A method offers a `Detector` (``layers/rooms/model.py``). ``evaluation.py`` has the numbers, ``execute.py`` the
protocol.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.detection_3d.options import DetectionOptions

NAMED = {
    "mAP25": Metric("mAP@0.25", "%", True, "mean over the classes of the AP at an IoU above 0.25"),
    "mAP50": Metric("mAP@0.5", "%", True, "mean over the classes of the AP at an IoU above 0.5"),
    "AR25": Metric("AR@0.25", "%", True, "recall of all detections at 0.25, mean over the classes"),
    "AR50": Metric("AR@0.5", "%", True, "recall of all detections at 0.5, mean over the classes"),
    "ap25_distance_slope": Metric(
        "AP slope", "points/m", True,
        "rise of a class's AP@0.25 per metre between its centres and their nearest points", 1,
    ),
    "recall_far_less_near": Metric(
        "Recall, far less near", "points", True,
        "recall at 0.25 of the half of the objects with points farther from the centre, minus the other half's",
    ),
    "vote_distance_before": Metric("Seed to centre", "m", False, "mean over seeds on objects", 3),
    "vote_distance_after": Metric("Vote to centre", "m", False, "mean over the votes of the same seeds", 3),
    "scenes_per_second": Metric(
        "Scenes/s", "1/s", True, "test scenes: network, suppression and decoding", 1, scale="log", timed=True
    ),
}  # fmt: skip


def _sampled(match: re.Match[str]) -> Metric:
    """``mAP25_votes``: the proposals sampled that way in the test."""
    what = f"the same weights, clusters sampled among the {match['sampling']} in the test"
    return Metric(f"mAP@0.25, {match['sampling']} sampled", "%", True, what)


def _counted(match: re.Match[str]) -> Metric:
    """``mAP25_x2``: twice the proposals in the test (``x0p5``: half)."""
    factor = match["factor"].replace("p", ".")
    what = f"the same weights, {factor} times the proposals in the test"
    return Metric(f"mAP@0.25, {factor}x proposals", "%", True, what)


TASK = Task(
    name="detection_3d",
    title="3-D object detection",
    primary_metric="mAP25",
    metrics=Metrics(NAMED, {r"mAP25_(?P<sampling>votes|seeds)": _sampled, r"mAP25_x(?P<factor>\d+(p\d+)?)": _counted}),
    options=DetectionOptions,
    build={
        "mean_sizes": "mean length, width and height (m) of the boxes of each class",
        "heading_bins": "bins that a box's heading is classified into; 1: boxes are axis-aligned",
        "sampled": "so many points of a cloud come first in farthest point order, 0: none",
    },
    returns="layers.rooms.model:Detector",
)
