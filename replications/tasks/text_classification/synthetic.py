"""A random set in the form of the task's data sets."""

import numpy as np

from replications.datasets.synthetic import SyntheticSet, splits
from replications.spec import RunSpec


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return the set by its key: enough texts for a batch of `samples` and for the labels."""
    rng, length = np.random.default_rng(0), spec.task_options["length"]
    split = splits(max(samples, 2 * max(spec.task_options["labels"])))
    arrays = {
        "words": rng.integers(3, 300, len(split) * length).astype(np.uint16),
        "start": np.arange(len(split) + 1, dtype=np.int64) * length,
        "label": (np.arange(len(split)) % 2).astype(np.int8),
        "split": split,
    }
    return {spec.data["texts"]: SyntheticSet(arrays, {"vocabulary": 300, "classes": ["one", "other"]})}
