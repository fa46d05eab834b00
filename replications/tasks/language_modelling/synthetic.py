"""A random text in the form of the task's own; speed is measured on the stage ``text`` alone."""

import numpy as np

from replications.datasets.synthetic import SyntheticSet, random_bytes
from replications.spec import RunSpec

WINDOWS = 16  # of the longest length, in each split


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return sets by key that hold a batch of `samples`: their windows overlap."""
    part = WINDOWS * (1 + spec.task_options["length"])
    return {spec.data["text"]: SyntheticSet({"text": random_bytes((3 * part,)), "splits": np.arange(4) * part}, {})}
