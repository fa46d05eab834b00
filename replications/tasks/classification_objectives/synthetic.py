"""Random sets in the form of the task's own: vectors with a rare class, or grey images of ten classes."""

import numpy as np

from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet, random_bytes
from replications.parsing import parse
from replications.spec import RunSpec
from replications.tasks.classification_objectives.options import ObjectiveOptions

VECTORS = 20  # features of the set of vectors
IDX_SIDE = 28


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return the set by its key, large enough that each split holds `samples`."""
    key = spec.data["samples"]
    entry = find_set(key)
    deal = parse(ObjectiveOptions, spec.task_options, "task options").deal
    count = 3 * samples if deal is None else deal.train + deal.validation + samples
    split = (np.arange(count) % 3).astype(np.int8)
    if entry.preparer == "vectors.rare":
        inputs = np.random.default_rng(0).standard_normal((count, entry.options.get("features", VECTORS)))
        arrays, classes = {"inputs": inputs.astype(np.float32)}, ["common", "rare"]
    else:
        side = entry.options.get("size", IDX_SIDE)
        arrays, classes = {"images": random_bytes((count, side, side))}, [f"class {number}" for number in range(10)]
    label = (np.arange(count) // 3 % len(classes)).astype(np.int32)  # each split has all classes
    return {key: SyntheticSet(arrays | {"label": label, "split": split}, {"classes": classes})}
