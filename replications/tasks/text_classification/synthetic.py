"""A random set in the form of the task's data sets."""

import numpy as np

from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet, splits
from replications.datasets.text.words import SPECIAL
from replications.spec import RunSpec


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return the set by its key, of the full vocabulary: texts for a batch of `samples` and for the labels."""
    key, length = spec.data["texts"], spec.task_options["length"]
    options = find_set(key).options
    words = options["vocabulary"] if "vocabulary" in options else options["concepts"] * options["synonyms"]
    classes = list(options.get("kinds", ("negative", "positive")))
    split = splits(max(samples, 2 * max(spec.task_options["labels"])))
    arrays = {
        "words": np.random.default_rng(0).integers(SPECIAL, SPECIAL + words, len(split) * length).astype(np.uint16),
        "start": np.arange(len(split) + 1, dtype=np.int64) * length,
        "label": (np.arange(len(split)) % len(classes)).astype(np.int8),
        "split": split,
    }
    return {key: SyntheticSet(arrays, {"vocabulary": SPECIAL + words, "classes": classes})}
