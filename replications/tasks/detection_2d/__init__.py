"""Detection of objects in images: which classes, in which boxes, and how sure.

A method offers a `Detector` (``model.py``). The numbers are COCO's and are computed by faster-coco-eval
(``evaluation.py``); ``execute.py`` says what is trained, validated and scored.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from replications.tasks.base import Metric

if TYPE_CHECKING:
    from typing import Any

    from replications.tasks.base import Context, Evaluation
    from replications.training.stage import Workload

QUALITY = {
    "ap": Metric("AP", "%", True, "COCO's average precision, mean over IoU 0.5 to 0.95 and classes"),
    "ap50": Metric("AP50", "%", True, "average precision at IoU 0.5"),
    "ap75": Metric("AP75", "%", True, "average precision at IoU 0.75"),
    "ap_small": Metric("AP_S", "%", True, "average precision of small objects, by the set's own area limits"),
    "ap_medium": Metric("AP_M", "%", True, "average precision of medium objects"),
    "ap_large": Metric("AP_L", "%", True, "average precision of large objects"),
    "ar1": Metric("AR1", "%", True, "average recall, one detection an image"),
    "ar10": Metric("AR10", "%", True, "average recall, ten detections an image"),
    "ar100": Metric("AR100", "%", True, "average recall, a hundred detections an image"),
    "ar_small": Metric("AR_S", "%", True, "average recall of small objects"),
    "ar_medium": Metric("AR_M", "%", True, "average recall of medium objects"),
    "ar_large": Metric("AR_L", "%", True, "average recall of large objects"),
    "mask_ap": Metric("Mask AP", "%", True, "average precision with the IoU of masks"),
    "mask_ap50": Metric("Mask AP50", "%", True, "average precision at IoU 0.5 of masks"),
}
OF_LAYERS = {
    "layer_gain": Metric("Last - first layer", "AP", True, "AP of the last decoder layer less that of the first"),
    "nms_gain_first": Metric("NMS, first layer", "AP", False, "AP with less AP without NMS, first decoder layer"),
    "nms_gain_last": Metric("NMS, last layer", "AP", False, "AP with less AP without NMS, of what is reported"),
    "giou_share": Metric("GIoU share", "%", True, "part of the weighted box loss that GIoU makes, end of training"),
}
LEARNING = {
    "epochs_to_level": Metric(
        "Epochs to level",
        "epochs",
        False,
        "until validation AP50 reaches the tier's level; all, if it never does",
        3,
        scale="log",
    ),
    "mean_ap": Metric("AP over training", "%", True, "validation AP, mean over the validations of the training"),
}
OF_LAYER = re.compile(r"ap_layer(?P<layer>[1-9]\d*)(?P<nms>_nms)?")


class MetricTable(Mapping[str, Metric]):
    """The named metrics, and ``ap_layer3`` or ``ap_layer3_nms`` for any decoder layer; iteration gives the named."""

    def __init__(self):
        self._named = QUALITY | OF_LAYERS | LEARNING

    def __getitem__(self, name: str) -> Metric:
        if name in self._named:
            return self._named[name]
        match = OF_LAYER.fullmatch(name)
        if match is None:
            raise KeyError(name)
        layer, suffix = match["layer"], ", NMS" if match["nms"] else ""
        what = f"AP of what decoder layer {layer} says{' after non-maximum suppression' if suffix else ''}"
        return Metric(f"AP, layer {layer}{suffix}", "%", True, what)

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)


class Detection2d:
    """The task; see ``replications.tasks.base.Task``."""

    name = "detection_2d"
    title = "Object detection"
    primary_metric = "ap"
    metrics = MetricTable()

    def execute(self, context: "Context") -> "Evaluation":
        from replications.tasks.detection_2d.execute import execute

        return execute(context)

    def workload(self, context: "Context") -> "Workload":
        from replications.tasks.detection_2d.execute import workload

        return workload(context)

    def score_weights(self, context: "Context") -> "Evaluation":
        from replications.tasks.detection_2d.execute import score_weights

        return score_weights(context)

    def check_options(self, options: "Mapping[str, Any]") -> None:
        from replications.tasks.detection_2d.options import parse_options

        parse_options(options)


TASK = Detection2d()
