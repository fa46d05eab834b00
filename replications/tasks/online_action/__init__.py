"""Online action detection: which action is this frame of, told from the frames up to it, and which ones come next?

A method offers an `ActionDetector` (``layers/actions/model.py``). Scores of the frames of all test streams are pooled,
and each action has its average precision; the background is not scored, nor are frames whose label is ambiguous, nor
an action that no test frame has.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.online_action.options import ActionOptions

NAMED = {
    "map": Metric("mAP", "%", True, "frame by frame average precision of the action now, mean over actions"),
    "cap": Metric("mcAP", "%", True, "the same, calibrated: as if actions were as frequent as all else (TVSeries)"),
    "leak": Metric("Leak", "", False, "largest change of a log-probability by a change of later frames: 0", 6),
    "step_ms": Metric("Step", "ms", False, "time of a training step", 2, scale="log", timed=True),
}
FURTHER = {
    "map_ahead": Metric("mAP ahead", "%", True, "mAP of the frames ahead, mean over the horizon"),
    "ahead_fall": Metric("Fall ahead", "%", False, "mAP of the nearest frame ahead less that of the farthest"),
}


def _ahead(match: re.Match[str]) -> Metric:
    """``map_ahead_3``: mAP of the action three frames ahead."""
    frames = match["frames"]
    return Metric(f"mAP +{frames}", "%", True, f"mAP of the action {frames} frames ahead")


TASK = Task(
    name="online_action",
    title="Online action detection",
    primary_metric="map",
    metrics=Metrics(NAMED, {r"map_ahead_(?P<frames>[1-9]\d*)": _ahead}, further=FURTHER),
    options=ActionOptions,
    build={
        "features": "numbers of a frame",
        "classes": "actions and, as class 0, the background",
        "window": "frames that a training sample has, and that a method without a state reads",
        "horizon": "frames ahead whose action is told",
    },
    returns="layers.actions.model:ActionDetector",
)
