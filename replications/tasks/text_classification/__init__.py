"""Text classification: what does learning from texts without labels bring where only a few texts have one?

A method offers a `TextModel` (``layers/text/classifier.py``). A run pretrains it on masked words of the training texts,
trains a classifier for each number of labelled texts from there, and scores both: ``execute.py``. Accuracies are means
over the classes; the labelled texts of a seed are the same for all methods.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.text_classification.options import TextOptions

OVER = "test texts classified correctly, mean over classes"
NAMED = {
    "accuracy": Metric("Few labels", "%", True, f"{OVER}; the tier's smallest number of labelled texts"),
    "accuracy_most": Metric("Most labels", "%", True, f"{OVER}; the tier's largest number of labelled texts"),
}
FURTHER = {
    "masked_bits": Metric("Masked bits", "bits", False, "bits a masked word of the test texts, all shown as masks", 3),
    "masked_accuracy": Metric("Masked accuracy", "%", True, "masked words of the test texts told exactly"),
    "unigram_bits": Metric("Unigram bits", "bits", False, "the same words by their frequency in the training texts", 3),
    "frozen_accuracy": Metric(
        "Frozen", "%", True, f"{OVER}; a logistic regression on frozen features, smallest number of labelled texts"
    ),
}


def _with_labels(match: re.Match[str]) -> Metric:
    """``accuracy_200``: trained on 200 labelled texts."""
    return Metric(f"{int(match['labels']):,} labels", "%", True, f"{OVER}; trained on {match['labels']} labelled texts")


TASK = Task(
    name="text_classification",
    title="Text classification",
    primary_metric="accuracy",
    metrics=Metrics(NAMED, {r"accuracy_(?P<labels>\d+)": _with_labels}, further=FURTHER),
    options=TextOptions,
    build={
        "vocabulary": "number of tokens: padding, unknown word and mask come first",
        "length": "words of a text at most",
        "num_classes": "classes of texts",
    },
    returns="layers.text.classifier:TextModel",
)
