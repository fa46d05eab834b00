"""Image classification: what is an image of, how many labels does it take to learn, and what did pretraining bring?

A method offers a `Classifier` (``layers/images/model.py``), which may bring a `Pretrainer`. A run trains one classifier
for each fraction of the labels, from scratch or from one common pretraining, and probes the features of the pretrained
network (or of the classifier with all labels): ``execute.py``.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.image_classification.options import ImageOptions

NAMED = {
    "accuracy": Metric("Top-1", "%", True, "test images classified correctly, trained on all labels"),
    "top5": Metric("Top-5", "%", True, "test images whose class is among the five likeliest, trained on all labels"),
    "label_gain": Metric("Label gain", "%", True, "top-1 with all labels less top-1 with the second largest fraction"),
    "linear_accuracy": Metric("Linear probe", "%", True, "top-1 of a linear classifier on frozen features, all labels"),
    "knn_accuracy": Metric("k-NN probe", "%", True, "top-1 of weighted nearest neighbours on frozen features"),
    "reconstruction_loss": Metric(
        "Reconstruction", "", False, "pretraining loss on test images; targets differ between methods", 4
    ),
    "reconstruction_gain": Metric(
        "Reconstruction gain", "%", True, "how far the loss is below that of predicting each patch's mean", 1
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


def _at_fraction(match: re.Match[str]) -> Metric:
    """``accuracy_10pct``: trained on 10 % of the labels (``0p5pct``: 0.5 %)."""
    percent = match["percent"].replace("p", ".")
    return Metric(
        f"Top-1, {percent} %", "%", True, f"test images classified correctly, trained on {percent} % of the labels"
    )


TASK = Task(
    name="image_classification",
    title="Image classification",
    primary_metric="accuracy",
    metrics=Metrics(NAMED, {r"accuracy_(?P<percent>\d+(p\d+)?)pct": _at_fraction}),
    options=ImageOptions,
    build={"num_classes": "classes of the data set", "image_size": "side of an image in pixels"},
    returns="layers.images.model:Classifier",
)
