"""Language modelling on long sequences: how well does a sequence mixer model bytes, and what does length cost it?

A method offers a `SequenceModel` (``layers/text/model.py``) for causal and for bidirectional use. A run has several
stages, each trained from scratch and scored by its own metrics; ``options.py`` says which there are, ``execute.py``
runs them.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.language_modelling.options import LanguageOptions

QUALITY = {
    "bits_per_byte": Metric("Bits per byte", "bits", False, "of the test text, windows of the training length", 4),
    "bits_per_byte_equal_time": Metric(
        "Bits, equal time",
        "bits",
        False,
        "per byte, trained for equal seconds at the row's own step time",
        4,
        timed=True,
    ),
    "recurrence_gap": Metric(
        "Recurrence gap", "", False, "largest difference of a logit, token by token against all at once, in float64", 12
    ),
    "masked_bits": Metric("Masked bits", "bits", False, "bits per masked byte of the test text", 4),
    "masked_accuracy": Metric("Masked accuracy", "%", True, "masked bytes of the test text predicted correctly"),
    "recall_accuracy": Metric("Recall", "%", True, "values of queried keys predicted correctly; the optimum is 100"),
    "recall_bits": Metric("Recall bits", "bits", False, "bits per queried value; the optimum is 0", 4),
    "brackets_accuracy": Metric("Brackets", "%", True, "closing brackets predicted correctly; the optimum is 100"),
    "brackets_bits": Metric("Bracket bits", "bits", False, "bits per closing bracket; the optimum is 0", 4),
    "listops_accuracy": Metric("ListOps", "%", True, "results of nested list operations predicted correctly"),
    "reviews_accuracy": Metric("IMDB bytes", "%", True, "sentiment of reviews, read as bytes"),
}
CLOCK = {"scale": "log", "timed": True}
COST = {
    "step_exponent": Metric("Step exponent", "", False, "p of: seconds of a training step ~ length^p", 3, timed=True),
    "memory_exponent": Metric("Memory exponent", "", False, "p of: memory of a training step ~ length^p", 3),
    "decode_exponent": Metric(
        "Decode exponent", "", False, "p of: seconds of one decoded token ~ position^p", 3, timed=True
    ),
    "state_exponent": Metric("State exponent", "", False, "p of: bytes kept for decoding ~ length^p", 3),
    "step_tokens_per_second": Metric(
        "Tokens/s", "1/s", True, "of a training step at the sweep's longest length", 0, **CLOCK
    ),
    "speedup_sdpa": Metric(
        "Speed-up, SDPA", "x", True, "over fused softmax attention, at the longest length", 3, **CLOCK
    ),
    "speedup_naive": Metric(
        "Speed-up, naive", "x", True, "over materialised softmax, at its longest length", 3, **CLOCK
    ),
    "crossover_sdpa": Metric(
        "Crossover, SDPA", "bytes", False, "length at which its fitted cost equals that of fused softmax", 0, **CLOCK
    ),
    "crossover_naive": Metric("Crossover, naive", "bytes", False, "the same against materialised softmax", 0, **CLOCK),
    "memory_ratio_sdpa": Metric(
        "Memory, SDPA", "x", False, "of what fused softmax needs, at the longest length", 3, scale="log"
    ),
}


def _at_length(match: re.Match[str]) -> Metric:
    """``bits_per_byte_x4``: windows of 4 times the training length (``x0p5``: half)."""
    factor = match["factor"].replace("p", ".")
    return Metric(f"Bits per byte, {factor}x", "bits", False, f"windows of {factor} times the training length", 4)


def _transfer(match: re.Match[str]) -> Metric:
    """``transfer_x4``: the rise of the bits per byte at 4 times the training length."""
    factor = match["factor"].replace("p", ".")
    what = f"bits per byte at {factor} times the training length, less those at that length"
    return Metric(f"Rise at {factor}x", "bits", False, what, 4)


TASK = Task(
    name="language_modelling",
    title="Long-sequence language modelling",
    primary_metric="bits_per_byte",
    metrics=Metrics(
        QUALITY | COST,
        {
            r"bits_per_byte_x(?P<factor>\d+(p\d+)?)": _at_length,
            r"transfer_x(?P<factor>\d+(p\d+)?)": _transfer,
        },
    ),
    options=LanguageOptions,
    build={
        "vocabulary": "number of tokens",
        "length": "training length: the most positions that the model needs to know",
        "causal": "predict each token from those before it, else from all that are not masked",
        "num_classes": "classes of a whole sequence; None: tokens are predicted",
    },
    returns="layers.text.model:SequenceModel",
)
