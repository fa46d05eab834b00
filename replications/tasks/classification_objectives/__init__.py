"""Classification by other objectives: a small classifier, and papers that change what it is trained by.

A method offers an `ObjectiveClassifier` (``layers/objectives/model.py``). Its class probabilities may be means over
draws of a random code. Thresholds are chosen on the validation split; the test split is scored once.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.classification_objectives.options import ObjectiveOptions

NAMED = {
    "accuracy": Metric("Accuracy", "%", True, "of test samples, probabilities averaged over draws of the code"),
    "accuracy_1": Metric("Accuracy, 1 draw", "%", True, "the same with a single draw of the code"),
    "nll": Metric(
        "NLL", "nats", False, "negative log-likelihood of a test sample's class, averaged as the accuracy", 3
    ),
}
CODE = {
    "averaging_gain": Metric("Averaging", "points", True, "accuracy less that of a single draw"),
    "information": Metric(
        "Rate", "nats", False, "mean KL of the code to its prior: an upper bound on I(Z; X)", 2, scale="log"
    ),
    "forgotten": Metric(
        "Forgotten",
        "%",
        True,
        "of the inputs' variance within classes, what a linear map of one draw of the code does not give back",
        1,
    ),
    "accuracy_fgsm": Metric("FGSM", "%", True, "accuracy when each pixel is moved once along the gradient's sign"),
    "accuracy_pgd": Metric("PGD", "%", True, "accuracy under the same attack in several steps"),
}
RARE = {
    "f1": Metric("F1", "%", True, "of the rare class, at threshold 0.5"),
    "f1_tuned": Metric("F1, tuned", "%", True, "of the rare class, at the threshold that is best on validation data"),
    "average_precision": Metric("AP", "%", True, "average precision of the rare class"),
    "soft_f1": Metric("Soft F1", "%", True, "of all test samples together"),
    "soft_accuracy": Metric("Soft accuracy", "%", True, "mean probability of the right class"),
}


def _bias(match: re.Match[str]) -> Metric:
    """``batch_bias_32``: of batches of 32."""
    size = match["size"]
    text = f"soft F1 of all test samples less the mean soft F1 of batches of {size}"
    return Metric(f"Bias, batch {size}", "points", False, text)


TASK = Task(
    name="classification_objectives",
    title="Classification by other objectives",
    primary_metric="accuracy",
    metrics=Metrics(NAMED, {r"batch_bias_(?P<size>\d+)": _bias}, further=CODE | RARE),
    options=ObjectiveOptions,
    build={
        "num_classes": "classes; 2 where one is told from the rest",
        "inputs": "numbers of a sample",
        "shares": "each class's share of the training samples",
    },
    returns="layers.objectives.model:ObjectiveClassifier",
)
