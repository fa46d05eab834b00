"""Random sets in the form of the task's own: points of a room, half of them in boxes at random places."""

import numpy as np

from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet, splits
from replications.spec import RunSpec

OBJECTS = 8
MEMBERSHIPS = 3  # objects that a point may belong to
CLASSES = 10  # of the composed rooms; other sets name theirs
WITHOUT_HEADINGS = ("scannet",)


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return sets by key that hold a batch of `samples`."""
    return {key: _set(key, samples) for key in {spec.data["train"], spec.data["test"]}}


def _set(key: str, samples: int) -> SyntheticSet:
    options = find_set(key).options
    points, classes = options["points"], len(options.get("classes", range(CLASSES)))
    objects = options.get("objects", [OBJECTS])[-1]
    rng = np.random.default_rng(0)
    count = len(split := splits(samples))
    centre, size = rng.uniform(-2, 2, (count, objects, 3)), rng.uniform(0.4, 1.5, (count, objects, 3))
    oriented = key not in WITHOUT_HEADINGS
    heading = rng.uniform(-np.pi, np.pi, (count, objects, 1)) * oriented
    own = rng.integers(0, objects, (count, points))
    within = np.arange(points) < points // 2
    offset = rng.uniform(-0.5, 0.5, (count, points, 3)) * np.take_along_axis(size, own[..., None], 1)
    in_box = np.take_along_axis(centre, own[..., None], 1) + offset
    inside = np.full((count, points, MEMBERSHIPS), -1, np.int8)
    inside[..., 0] = np.where(within, own, -1)
    order = rng.permutation(points)
    cloud = np.where(within[:, None], in_box, rng.uniform(-3, 3, (count, points, 3))).astype(np.float32)
    arrays = {
        "points": cloud[:, order],
        "inside": inside[:, order],
        "boxes": np.concatenate([centre, size, heading], -1).astype(np.float32),
        "label": rng.integers(0, classes, (count, objects)).astype(np.int8),
        "split": split,
    }
    facts = {
        "classes": [f"class {number}" for number in range(classes)],
        "mean_sizes": [[1.0, 1.0, 1.0]] * classes,
        "oriented": oriented,
        "sampled": options.get("sampled", 0),
    }
    return SyntheticSet(arrays, facts)
