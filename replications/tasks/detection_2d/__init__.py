"""Detection of objects in images: which classes, in which boxes, and how sure.

A method offers a `Detector` (``layers/detection/model.py``). The numbers are COCO's and are computed by
faster-coco-eval (``evaluation.py``); ``stages.py`` has training and validation, ``execute.py`` the scoring.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.detection_2d.options import DetectionOptions

QUALITY = {
    "ap": Metric("AP", "%", True, "COCO's average precision, mean over IoU 0.5 to 0.95 and classes"),
    "ap50": Metric("AP50", "%", True, "average precision at IoU 0.5"),
    "ap75": Metric("AP75", "%", True, "average precision at IoU 0.75"),
    "ap_small": Metric("AP_S", "%", True, "average precision of small objects, by the set's own area limits"),
    "ap_medium": Metric("AP_M", "%", True, "average precision of medium objects"),
    "ap_large": Metric("AP_L", "%", True, "average precision of large objects"),
    "ar1": Metric("AR1", "%", True, "average recall, one detection per image"),
    "ar10": Metric("AR10", "%", True, "average recall, ten detections per image"),
    "ar100": Metric("AR100", "%", True, "average recall, a hundred detections per image"),
    "ar_small": Metric("AR_S", "%", True, "average recall of small objects"),
    "ar_medium": Metric("AR_M", "%", True, "average recall of medium objects"),
    "ar_large": Metric("AR_L", "%", True, "average recall of large objects"),
    "mask_ap": Metric("Mask AP", "%", True, "average precision with the IoU of masks"),
    "mask_ap50": Metric("Mask AP50", "%", True, "average precision at IoU 0.5 of masks"),
}
OF_LAYERS = {
    "layer_gain": Metric("Last - first layer", "AP", True, "AP of the last decoder layer minus that of the first"),
    "nms_gain_first": Metric("NMS, first layer", "AP", False, "AP with NMS minus AP without, first decoder layer"),
    "nms_gain_last": Metric("NMS, last layer", "AP", False, "AP with NMS minus AP without, reported detections"),
    "order_gap": Metric("Order of queries", "%", False, "change of the set loss when the queries are reversed", 6),
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


def _of_layer(match: re.Match[str]) -> Metric:
    """``ap_layer3`` or ``ap_layer3_nms``: a decoder layer, with or without non-maximum suppression."""
    layer, nms = match["layer"], bool(match["nms"])
    what = f"AP of the predictions of decoder layer {layer}{' after non-maximum suppression' if nms else ''}"
    return Metric(f"AP, layer {layer}{', NMS' if nms else ''}", "%", True, what)


TASK = Task(
    name="detection_2d",
    title="Object detection",
    primary_metric="ap",
    metrics=Metrics(QUALITY | OF_LAYERS | LEARNING, {r"ap_layer(?P<layer>[1-9]\d*)(?P<nms>_nms)?": _of_layer}),
    options=DetectionOptions,
    build={
        "num_classes": "classes of the data set",
        "category_ids": "their numbers in the data set's annotations, in the classes' order",
    },
    returns="layers.detection.model:Detector",
)
