"""Point clouds: tell the class of a shape, and the part that each of its points belongs to.

A method offers a `PointClassifier` (``model.py``), and where it wants them a `PartSegmenter` and an `Autoencoder`.
Model selection sees the validation split only; the test split is scored once, with one pass (votes = 1).
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from replications.tasks.base import Metric

if TYPE_CHECKING:
    from replications.tasks.base import Context, Evaluation
    from replications.training.stage import Workload

QUALITY = {
    "accuracy": Metric("Accuracy", "%", True, "of test clouds, one pass each, copies of training clouds left out"),
    "class_accuracy": Metric("Class accuracy", "%", True, "mean of the classes' accuracies"),
    "accuracy_all": Metric("Accuracy, all", "%", True, "with test clouds that are copies of training clouds"),
    "part_miou": Metric("Part mIoU", "%", True, "mean over test clouds of the mean IoU over their class's parts"),
    "part_class_miou": Metric("Class mIoU", "%", True, "the same, mean over the classes"),
    "part_accuracy": Metric("Part accuracy", "%", True, "points that get their own part"),
    "chamfer": Metric("Chamfer", "1e-3", False, "of reconstructed clouds, distances in unit spheres, both ways", 1),
    "probe_accuracy": Metric("Probe", "%", True, "linear classifier on the autoencoder's features"),
}
PROTOCOL = {
    "accuracy_best_on_test": Metric(
        "Best on test", "%", True, "the highest test accuracy of all validations: a figure of public code, no result"
    ),
    "inflation": Metric("Inflation", "points", False, "best accuracy on the test split less the last epoch's"),
    "accuracy_voted": Metric("Voted", "%", True, "mean of the probabilities of several scaled copies"),
    "voting_gain": Metric("Voting gain", "points", True, "voted accuracy less that of one pass"),
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
    "scale_spread": Metric("Scale spread", "", True, "std / mean of the learned density scale over a cloud", 4),
}
UNDER = re.compile(r"(?P<kind>accuracy|drop)_(?P<condition>[a-z]\w*)")
KEPT = re.compile(r"keep(?P<percent>\d+)(?P<how>_\w+)?")


class MetricTable(Mapping[str, Metric]):
    """Named metrics; for a test under another condition ``accuracy_<condition>``, and ``drop_<condition>``, its loss.

    Conditions are ``keep50`` (half of the points), ``gradient`` (another sampling), and what models name themselves.
    Iteration gives quality and protocol only: which others there are is the tier's and the methods' business.
    """

    def __init__(self):
        self._named = QUALITY | PROTOCOL | ROBUSTNESS | COST | OPERATOR

    def __getitem__(self, name: str) -> Metric:
        if name in self._named:
            return self._named[name]
        match = UNDER.fullmatch(name)
        if match is None:
            raise KeyError(name)
        kept = KEPT.fullmatch(match["condition"])
        words = match["condition"].replace("_", " ")
        if kept:
            words = f"{kept['percent']} % of the points" + (kept["how"] or "").replace("_", " ")
        if match["kind"] == "drop":
            return Metric(f"Loss, {words}", "points", False, f"accuracy less that under: {words}")
        return Metric(f"Accuracy, {words}", "%", True, f"test accuracy under: {words}")

    def __iter__(self) -> Iterator[str]:
        return iter(QUALITY | PROTOCOL)

    def __len__(self) -> int:
        return len(QUALITY | PROTOCOL)


class PointClassification:
    """The task; see ``replications.tasks.base.Task``."""

    name = "point_classification"
    title = "Point cloud classification"
    primary_metric = "accuracy"
    metrics = MetricTable()

    def execute(self, context: "Context") -> "Evaluation":
        from replications.tasks.point_classification.execute import execute

        return execute(context)

    def workload(self, context: "Context") -> "Workload":
        from replications.tasks.point_classification.execute import workload

        return workload(context)

    def score_weights(self, context: "Context") -> "Evaluation":
        from replications.tasks.point_classification.execute import score_weights

        return score_weights(context)

    def rescore(self, arrays: Mapping[str, Any]) -> dict[str, float]:
        from replications.tasks.point_classification.metrics import accuracies

        return accuracies(arrays["predicted"], arrays["label"], arrays["copy"])

    def check_options(self, options: Mapping[str, Any]) -> None:
        from replications.tasks.point_classification.options import parse_options

        parse_options(options)


TASK = PointClassification()
