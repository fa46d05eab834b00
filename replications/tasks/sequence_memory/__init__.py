"""What a model of sequences keeps: recall over distance and number of pairs, the path of the gradient, what waits.

Three measurements of one network. Trained: it reads pairs of key and value, a gap of filler tokens, and a key again,
and tells its value. Untrained: how much of the gradient of an output is left at an input some positions earlier.
Counted: how many operations of a training step must wait for one another, and what decoding keeps.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.sequence_memory.options import MemoryOptions

PATH = "of |dy_T/dx_t| from a position to the one before, geometric mean over the fitted distances"
NAMED = {
    "path_factor": Metric("Path factor", "", True, f"{PATH}; one layer at the start", 3),
    "recall": Metric("Recall", "%", True, "values told correctly, mean over numbers of pairs and gaps"),
    "path_log10": Metric(
        "Path, log10", "", True, "log10 of |dy_T/dx_t| at the largest fitted distance, at the start", 2
    ),
    "sequential_operations": Metric(
        "In sequence", "", False, "operations a position that wait for those of the position before, counted", 2
    ),
    "state_bytes": Metric("State", "bytes", False, "that decoding keeps more for each further position", 0),
}
FURTHER = {
    "recall_fall": Metric("Fall over the gap", "%", False, "most pairs: recall at the smallest gap less the largest"),
    "path_factor_trained": Metric("Path factor, trained", "", True, f"{PATH}; one layer after training", 3),
    "step_ms": Metric("Step", "ms", False, "of a training step of one sequence", 3, scale="log", timed=True),
}


def _recall(match: re.Match[str]) -> Metric:
    """``recall_p2_g32``: values told after 2 pairs and a gap of 32."""
    pairs, gap = match["pairs"], match["gap"]
    what = f"values told correctly of {pairs} pairs, {gap} filler tokens later"
    return Metric(f"Recall, {pairs} pairs, gap {gap}", "%", True, what)


TASK = Task(
    name="sequence_memory",
    title="Memory of sequences",
    primary_metric="path_factor",
    metrics=Metrics(NAMED, {r"recall_p(?P<pairs>\d+)_g(?P<gap>\d+)": _recall}, further=FURTHER),
    options=MemoryOptions,
    build={
        "vocabulary": "number of tokens",
        "length": "longest sequence: the most positions that the model needs to know",
        "causal": "true: a position sees those up to its own",
        "num_classes": "None: tokens are predicted",
    },
    returns="layers.text.model:SequenceModel",
)
