"""Random streams in the form of the task's data sets."""

import numpy as np

from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet
from replications.spec import RunSpec

FRAMES = 200  # of a stream
CLASSES = {"THUMOS": 21, "TVSeries": 31}


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return the set by its key; its training streams hold `samples` frames or more."""
    key = spec.data["streams"]
    options = find_set(key).options
    procedural = "name" not in options
    width = options.get("features", 16) if procedural else sum(options["widths"])
    classes = 1 + 2 * options.get("pairs", 3) if procedural else CLASSES[options["name"]]
    streams = -(-samples // FRAMES)
    split = np.repeat(np.arange(3, dtype=np.int8), [streams, 1, 1])
    rng, frames = np.random.default_rng(0), FRAMES * len(split)
    arrays = {
        "features": rng.standard_normal((frames, width), np.float32),
        "target": np.eye(classes, dtype=np.uint8)[np.arange(frames) % classes],
        "valid": np.ones(frames, bool),
        "bounds": np.arange(0, frames + 1, FRAMES, dtype=np.int64),
        "split": split,
    }
    return {key: SyntheticSet(arrays, {"classes": [f"class {number}" for number in range(classes)]})}
