"""Random sets in the form of the task's own. Runs start from random weights: which ones is no matter of speed."""

import io

import numpy as np
from PIL import Image

from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet, random_bytes, splits
from replications.spec import RunSpec

OBJECTS = 7  # of an image: COCO has 7.3 on average
SIDES = (480, 640)  # height and width of an image in a file: COCO's most frequent
DRAWN = 8  # different image files
# COCO's numbers of its 80 classes leave ten out.
COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return sets by key that hold a batch of `samples`."""
    return {key: _set(key, samples, bool(spec.task_options.get("masks"))) for key in _roles(spec)}


def _roles(spec: RunSpec) -> set[str]:
    return {spec.data["train"], spec.data["test"]}


def _set(key: str, samples: int, with_masks: bool) -> SyntheticSet:
    options = find_set(key).options
    count = len(split := splits(samples))
    if "image_size" in options:
        size, objects = (options["image_size"],) * 2, options["most_objects"]
        ids = list(range(1, options["classes"] + 1))
        arrays = {"images": random_bytes((count, *size, 3))}
        if with_masks:
            arrays["masks"] = random_bytes((count, objects, -(-size[0] * size[1] // 8)))
    else:
        size, objects = SIDES, OBJECTS
        ids = COCO_IDS if options["categories"] == 80 else list(range(1, options["categories"] + 1))
        files = [_encoded(picture) for picture in random_bytes((DRAWN, *size, 3))]
        rows = [files[row % DRAWN] for row in range(count)]
        start = np.cumsum([0, *map(len, rows)])
        arrays = {"files": np.frombuffer(b"".join(rows), np.uint8), "file_start": start}
    rng = np.random.default_rng(0)
    extent = np.array(size[::-1], np.float32)
    corner, reach = rng.uniform(0, 0.6, (count, objects, 2)), rng.uniform(0.1, 0.4, (count, objects, 2))
    arrays |= {
        "image_id": np.arange(count),
        "image_size": np.tile(np.array(size, np.int32), (count, 1)),
        "split": split,
        "boxes": np.concatenate([corner * extent, (corner + reach) * extent], -1).astype(np.float32),
        "labels": rng.integers(0, len(ids), (count, objects)).astype(np.int16),
        "crowd": np.zeros((count, objects), bool),
        "area": (reach * extent).prod(-1).astype(np.float32),
    }
    facts = {"classes": [f"class {number}" for number in ids], "category_ids": ids, "area_limits": [1024.0, 9216.0]}
    return SyntheticSet(arrays, facts)


def _encoded(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG")
    return stream.getvalue()
