"""Random sets in the form of the task's data sets: fair bits."""

import numpy as np

from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet
from replications.spec import RunSpec


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return the set by its key; each split holds `samples` images."""
    key = spec.data["images"]
    options = find_set(key).options
    classes = 0 if options["form"] == "text" else 10
    rng = np.random.default_rng(0)
    arrays = {
        "bits": rng.integers(0, 2, (3 * samples, options["side"] ** 2), np.uint8),
        "label": rng.integers(0, classes, 3 * samples).astype(np.int32) if classes else np.full(3 * samples, -1),
        "split": np.repeat(np.arange(3, dtype=np.int8), samples),
    }
    return {key: SyntheticSet(arrays, {"shape": [options["side"]] * 2, "classes": classes})}
