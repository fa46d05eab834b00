"""Random sets in the form of the task's own."""

import numpy as np

from replications.datasets.images.procedural import FIGURES
from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet, random_bytes, splits
from replications.spec import RunSpec

CLASSES = {"images.digits": 10, "images.procedural": len(FIGURES)}  # by preparer; other sets say how many


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return sets by key that hold a batch of `samples`."""
    key = spec.data["images"]
    entry = find_set(key)
    side = entry.options.get("size") or entry.options["image_size"]
    classes = entry.options.get("num_classes") or CLASSES[entry.preparer]
    split = splits(samples)
    label = (np.arange(len(split)) % classes).astype(np.int16)
    arrays = {"images": random_bytes((len(split), side, side, 3)), "label": label, "split": split}
    return {key: SyntheticSet(arrays, {"classes": [f"class {number}" for number in range(classes)]})}
