"""What all sets of point clouds have in common: checks of a cloud, its size, and the arrays that are written.

Defined behaviour: a cloud with fewer points than wanted is repeated in turn; duplicates are kept; a cloud of a single
position is at the origin after normalising. Clouds without points, NaN and infinity are errors.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from replications.datasets.rows import require_finite
from replications.errors import UserError


def check_cloud(points: np.ndarray, where: str) -> np.ndarray:
    """Return `points` as float32 [n, 3]; raises UserError that starts with `where` for a cloud that is none."""
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3:
        raise UserError(f"{where}: a cloud must be [points, 3], not {list(points.shape)}")
    if not len(points):
        raise UserError(f"{where}: the cloud is empty; leave it out of the lists")
    with np.errstate(over="ignore"):
        points = points.astype(np.float32)
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise UserError(f"{where}: point {int(np.argmax(bad))} is not finite ({int(bad.sum())} such points)")
    return points


def first_points(cloud: np.ndarray, count: int) -> np.ndarray:
    """Return the first `count` rows; a shorter cloud is repeated in turn."""
    return cloud[np.arange(count) % len(cloud)]


def normalise(points: np.ndarray) -> np.ndarray:
    """Move clouds [..., P, 3] to their mean and scale them into the unit sphere."""
    points = points - points.mean(axis=-2, keepdims=True)
    radius = np.linalg.norm(points, axis=-1).max(axis=-1)[..., None, None]
    return points / np.where(radius > 0, radius, 1)


def splits_of(train: Sequence[str], fraction: float) -> np.ndarray:
    """Return 0 (train) or 1 (validation) for names of training clouds [n]: equal names go together, by their hash.

    Every class should keep clouds in both; with a few dozen clouds a class it does.
    """
    import hashlib

    share = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32 for name in train]
    return (np.array(share) < fraction).astype(np.int8)


def whole_labels(values: np.ndarray, where: str) -> list[int]:
    """Return labels [n], [n, 1] of a file as whole numbers; raises UserError that starts with `where` for others."""
    values = np.asarray(values).reshape(-1)
    if values.dtype.kind not in "iuf" or not ((values >= 0) & (values < 1 << 15) & (values == np.floor(values))).all():
        raise UserError(f"{where}: its labels must be whole numbers from 0 on")
    return values.astype(np.int64).tolist()


def write_clouds(target: Path, classes: Sequence[str], **arrays: np.ndarray) -> dict:
    """Write ``points``, ``label``, ``split`` and what else is given; return the facts of a set without parts.

    Raises UserError where a label is none of the classes.
    """
    label = arrays["label"]
    if len(label) and not 0 <= label.min() <= label.max() < len(classes):
        raise UserError(f"labels run from {label.min()} to {label.max()}, for {len(classes)} classes")
    for name, array in arrays.items():
        require_finite(array, name)
        np.save(target / f"{name}.npy", array)
    counts = np.bincount(arrays["split"], minlength=3).tolist()
    return {"classes": list(classes), "clouds": dict(zip(("train", "validation", "test"), counts, strict=True))}
