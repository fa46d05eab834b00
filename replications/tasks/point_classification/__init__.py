"""Point clouds: predict the class of a shape, and the part that each of its points belongs to.

A method offers a `PointClassifier` (``layers/points/model.py``), and where it wants them a `PartSegmenter` and an
`Autoencoder`. Model selection sees the validation split only; the test split is scored once, with one pass (votes = 1).
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.point_classification.options import PointOptions

QUALITY = {
    "accuracy": Metric("Accuracy", "%", True, "of test clouds, one pass each, copies of training clouds left out"),
    "class_accuracy": Metric("Class accuracy", "%", True, "mean of the classes' accuracies"),
    "accuracy_all": Metric("Accuracy, all", "%", True, "with test clouds that are copies of training clouds"),
    "part_miou": Metric("Part mIoU", "%", True, "mean over test clouds of the mean IoU over their class's parts"),
    "part_class_miou": Metric("Class mIoU", "%", True, "the same, mean over the classes"),
    "part_accuracy": Metric("Part accuracy", "%", True, "points with the correct part"),
    "chamfer_distance": Metric(
        "Chamfer distance", "1e-3", False, "of reconstructed clouds, distances in unit spheres, both ways", 1
    ),
    "probe_accuracy": Metric("Probe", "%", True, "linear classifier on the autoencoder's features"),
}
PROTOCOL = {
    "accuracy_best_on_test": Metric(
        "Best on test",
        "%",
        True,
        "the highest test accuracy of all validations: as public code reports it, not a result",
    ),
    "inflation": Metric("Inflation", "points", False, "best accuracy on the test split minus the last epoch's"),
    "accuracy_voted": Metric("Voted", "%", True, "mean of the probabilities of several scaled copies"),
    "voting_gain": Metric("Voting gain", "points", True, "voted accuracy minus that of one pass"),
}
ROBUSTNESS = {
    "order_difference": Metric(
        "Order", "", False, "largest change of a class probability when the points come in another order", 5
    ),
    "shift_difference": Metric("Shift", "", False, "the same when the cloud is moved by (1, -1, 0.5)", 5),
}
COST = {
    "step_ms": Metric(
        "Step", "ms", False, "wall time of a training step, mean over the stage", 1, scale="log", timed=True
    ),
    "step_ms_all": Metric(
        "Step, all", "ms", False, "with what was computed of each cloud beforehand", 1, scale="log", timed=True
    ),
}
OPERATOR = {
    "form_difference": Metric(
        "Form difference", "", False, "largest difference of two forms of the operator, over the largest value", 9
    ),
    "form_memory_ratio": Metric(
        "Form memory", "x", True, "peak memory of the naive form over the other's", 2, scale="log"
    ),
    "form_memory_computed": Metric(
        "Form memory, computed", "x", True, "the same of the weight tensors, by formula", 2, scale="log"
    ),
    "form_memory_share": Metric(
        "Form memory, share", "", True, "the measured ratio over the computed one", 3, scale="log"
    ),
    "density_spread": Metric("Density spread", "", True, "std / mean of the density scale's input over a cloud", 4),
    "released_spread": Metric(
        "Released density's spread", "", True, "`density_spread` with the density of PointConv's released code", 4
    ),
    "scale_spread": Metric("Scale spread", "", True, "std / mean of the learned density scale over a cloud", 4),
}

FORMER = {
    "chamfer": Metric("Chamfer, squared", "1e-3", False, "of older records; now `chamfer_distance`", 3),
}


def _words(condition: str) -> str:
    """Name a test condition: ``keep50`` (half of the points), ``gradient`` (another sampling), or a model's own."""
    kept = re.fullmatch(r"keep(?P<percent>\d+)(?P<how>_\w+)?", condition)
    if kept:
        return f"{kept['percent']} % of the points" + (kept["how"] or "").replace("_", " ")
    return condition.replace("_", " ")


def _under(match: re.Match[str]) -> Metric:
    """``accuracy_<condition>``: a test under another condition."""
    words = _words(match["condition"])
    return Metric(f"Accuracy, {words}", "%", True, f"test accuracy under: {words}")


def _loss(match: re.Match[str]) -> Metric:
    """``drop_<condition>``: what that condition costs."""
    words = _words(match["condition"])
    return Metric(f"Loss, {words}", "points", False, f"accuracy less that under: {words}")


TASK = Task(
    name="point_classification",
    title="Point cloud classification",
    primary_metric="accuracy",
    metrics=Metrics(
        QUALITY | PROTOCOL,
        {r"accuracy_(?P<condition>[a-z]\w*)": _under, r"drop_(?P<condition>[a-z]\w*)": _loss},
        further=ROBUSTNESS | COST | OPERATOR | FORMER,
    ),
    options=PointOptions,
    build={
        "num_classes": "classes of the data set",
        "channels": "features of a point beside its position: 3 with normals, else 0 or the colours",
        "points": "points of a cloud",
        "num_parts": "parts of the data set; None: the stage is not segmentation. With it, return a PartSegmenter",
        "reconstruct": "whether the stage is pretraining. Where it is, return an Autoencoder",
    },
    returns="layers.points.model:PointClassifier",
)
