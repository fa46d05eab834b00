"""Random sets in the form of the task's own: points in the unit ball, or a grid of coloured ones."""

import numpy as np

from replications.datasets.points.procedural.classes import CLASSES as DRAWN
from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet, random_bytes
from replications.spec import RunSpec

CLASSES = {"modelnet40_normals": 40}  # other sets that are not drawn here have ten


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return sets by key that hold a batch of `samples`."""
    return {key: _set(key, samples) for key in {spec.data["train"], spec.data["test"]}}


def _set(key: str, samples: int) -> SyntheticSet:
    entry = find_set(key)
    classes = len(DRAWN) if entry.preparer == "points.procedural" else CLASSES.get(key, 10)
    each = max(samples, classes)
    label, split = np.tile(np.arange(each) % classes, 3).astype(np.int16), np.repeat(np.arange(3, dtype=np.int8), each)
    arrays = {"label": label, "split": split}
    if entry.preparer == "points.images":
        side, channels = (8, 1) if entry.options["data"] == "digits" else (32, 3)
        y, x = np.meshgrid(*2 * [np.linspace(-1, 1, side, dtype=np.float32)], indexing="ij")
        arrays["points"] = np.stack([x, y, 0 * x], -1).reshape(1, -1, 3)
        arrays["colours"] = random_bytes((len(split), side * side, channels))
    else:
        rng = np.random.default_rng(0)
        shape = (len(split), entry.options["points"], 3)
        normals = rng.standard_normal(shape, np.float32)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        arrays |= {"points": normals * rng.random(shape[:2], np.float32)[..., None] ** (1 / 3), "normals": normals}
    return SyntheticSet(arrays, {"classes": [f"class {number}" for number in range(classes)]})
