"""Image classification: what is an image of, how many labels does it take to learn, and what did pretraining bring?

A method offers a `Classifier` (``model.py``), which may bring a `Pretrainer` of its own. A run trains one classifier
for each fraction of the labels, from scratch or from one common pretraining, and probes the features of the pretrained
network (or of the classifier with all labels): ``execute.py``.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from replications.tasks.base import Metric

if TYPE_CHECKING:
    from replications.tasks.base import Context, Evaluation
    from replications.training.stage import Workload

NAMED = {
    "accuracy": Metric("Top-1", "%", True, "test images told exactly, trained on all labels"),
    "top5": Metric("Top-5", "%", True, "test images whose class is among the five likeliest, trained on all labels"),
    "label_gain": Metric("Label gain", "%", True, "top-1 with all labels less top-1 with the second largest fraction"),
    "linear_accuracy": Metric("Linear probe", "%", True, "top-1 of a linear classifier on frozen features, all labels"),
    "knn_accuracy": Metric("k-NN probe", "%", True, "top-1 of weighted nearest neighbours on frozen features"),
    "reconstruction_loss": Metric(
        "Reconstruction", "", False, "the pretraining's own loss on test images; targets differ between methods", 4
    ),
    "reconstruction_gain": Metric(
        "Reconstruction gain", "%", True, "how far the loss lies below that of telling each patch's mean", 1
    ),
    "train_tflops": Metric(
        "Training TFLOP", "TFLOP", False, "of the run with all labels, pretraining included", 3, scale="log"
    ),
    "pretrain_flops": Metric(
        "Pretraining FLOPs", "MFLOP", False, "of a forward pass of the pretraining, an image", 1, scale="log"
    ),
    "speedup": Metric(
        "Speed-up",
        "x",
        True,
        "of a pretraining step at the paper's proportions, measured in turns",
        scale="log",
        timed=True,
    ),
    "flops_ratio": Metric(
        "FLOPs saved", "x", True, "FLOPs of that step without the saving over those with it", scale="log"
    ),
}
AT_FRACTION = re.compile(r"accuracy_(?P<percent>\d+(p\d+)?)pct")


class MetricTable(Mapping[str, Metric]):
    """Named metrics; ``accuracy_10pct`` is top-1 of the classifier trained on 10 % of the labels (``0p5``: 0.5 %).

    Iteration gives the named ones only: which fractions there are is the tier's business.
    """

    def __getitem__(self, name: str) -> Metric:
        if name in NAMED:
            return NAMED[name]
        match = AT_FRACTION.fullmatch(name)
        if match is None:
            raise KeyError(name)
        percent = match["percent"].replace("p", ".")
        return Metric(
            f"Top-1, {percent} %", "%", True, f"test images told exactly, trained on {percent} % of the labels"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(NAMED)

    def __len__(self) -> int:
        return len(NAMED)


class ImageClassification:
    """The task; see ``replications.tasks.base.Task``."""

    name = "image_classification"
    title = "Image classification"
    primary_metric = "accuracy"
    metrics = MetricTable()

    def execute(self, context: "Context") -> "Evaluation":
        from replications.tasks.image_classification.execute import execute

        return execute(context)

    def workload(self, context: "Context") -> "Workload":
        from replications.tasks.image_classification.execute import workload

        return workload(context)

    def score_weights(self, context: "Context") -> "Evaluation":
        from replications.tasks.image_classification.weights import score_weights

        return score_weights(context)

    def rescore(self, arrays: Mapping[str, Any]) -> dict[str, float]:
        from replications.tasks.image_classification.rescore import rescore

        return rescore(arrays)

    def check_options(self, options: Mapping[str, Any]) -> None:
        from replications.tasks.image_classification.options import parse_options

        parse_options(options)


TASK = ImageClassification()
