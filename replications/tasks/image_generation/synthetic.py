"""Random sets in the form of the task's data sets."""

import numpy as np

from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet, random_bytes, splits
from replications.spec import RunSpec


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return the set by its key; its training split holds `samples` images."""
    key = spec.data["images"]
    options = find_set(key).options
    pixels, hidden, features = options["side"] ** 2, options["feature_hidden"], options["features"]
    rng, split = np.random.default_rng(0), splits(samples)
    arrays = {
        "images": random_bytes((len(split), pixels)),
        "label": rng.integers(0, 10, len(split)).astype(np.int32),
        "split": split,
        "feature_weight_0": (rng.normal(size=(pixels, hidden)) / pixels**0.5).astype(np.float32),
        "feature_bias_0": np.zeros(hidden, np.float32),
        "feature_weight_1": (rng.normal(size=(hidden, features)) / hidden**0.5).astype(np.float32),
        "feature_bias_1": np.zeros(features, np.float32),
    }
    return {key: SyntheticSet(arrays, {"shape": [options["side"]] * 2, "classes": 10})}
