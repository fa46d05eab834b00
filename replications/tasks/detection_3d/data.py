"""The task's data: scenes of points with boxes, checked when they are opened.

A set has the arrays of ``datasets.rooms.scenes.write_scenes`` and the facts of its ``describe``.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from replications.errors import UserError
from replications.tasks.data import Splits, open_prepared

NEEDED = ("points", "inside", "boxes", "label", "split")
FLOOR_PERCENTILE = 0.99  # of 100: as in the authors' code, a little below the first percentile


@dataclass(frozen=True)
class SceneSet(Splits):
    """`points` [S, P, 3], `inside` [S, P, k], `boxes` [S, m, 7], `label` [S, m], `split` [S]; one mean size a class.

    `oriented`: boxes have headings. `sampled`: so many points come first in farthest point order. `floor` [S]: z of the
    floor, that of all stored points.
    """

    key: str
    points: np.ndarray
    inside: np.ndarray
    boxes: np.ndarray
    label: np.ndarray
    split: np.ndarray
    classes: tuple[str, ...]
    mean_sizes: tuple[tuple[float, float, float], ...]
    oriented: bool
    sampled: int
    title: str = ""

    @cached_property
    def floor(self) -> np.ndarray:
        return np.array([np.percentile(cloud[:, 2], FLOOR_PERCENTILE) for cloud in self.points], np.float32)


def open_scenes(key: str, data_root: Path) -> SceneSet:
    """Open a set of scenes; raises UserError where it is something else or its scenes are not what they must be."""
    prepared = open_prepared(key, data_root, "scenes", NEEDED)
    facts = prepared.meta["facts"]
    scenes = SceneSet(
        key,
        **{name: prepared.arrays[name] for name in NEEDED},
        classes=tuple(facts["classes"]),
        mean_sizes=tuple(tuple(row) for row in facts["mean_sizes"]),
        oriented=facts["oriented"],
        sampled=facts["sampled"],
        title=prepared.meta["title"],
    )
    check_scenes(scenes)
    return scenes


def check_scenes(scenes: SceneSet) -> None:
    """Raise UserError, naming the first wrong scene, for coordinates that are not finite, boxes without volume and
    classes that have no mean size."""
    where = f"data set '{scenes.key}', scene"
    if scenes.points.shape[1] == 0:
        raise UserError(f"data set '{scenes.key}' has scenes without points: prepare it again")
    for row in range(len(scenes.points)):
        if not np.isfinite(scenes.points[row]).all():
            raise UserError(f"{where} {row}: a point's coordinate is not finite: drop such points in its preparation")
    there = scenes.label >= 0
    unknown = np.argwhere(scenes.label >= len(scenes.mean_sizes))
    if len(unknown):
        row, place = unknown[0]
        raise UserError(
            f"{where} {row}: class {scenes.label[row, place]} is not among the {len(scenes.mean_sizes)} mean sizes"
        )
    broken = np.argwhere(there & ~np.isfinite(scenes.boxes).all(-1))
    if len(broken):
        raise UserError(f"{where} {broken[0][0]}: a box is not finite")
    flat = np.argwhere(there & (scenes.boxes[..., 3:6] <= 0).any(-1))
    if len(flat):
        row, place = flat[0]
        size = scenes.boxes[row, place, 3:6].round(3).tolist()
        raise UserError(f"{where} {row}: a box of size {size} has no volume: drop it in the set's preparation")


def nearest_to_centre(points: np.ndarray, inside: np.ndarray, boxes: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the distance of each object's centre to the object's nearest point, ``[s, m]``; NaN: no object.

    An object without points has the distance to the nearest point of the scene.
    """
    result = np.full(label.shape, np.nan)
    for s, k in np.argwhere(label >= 0):
        own = (inside[s] == k).any(-1)
        cloud = points[s][own] if own.any() else points[s]
        result[s, k] = np.linalg.norm(cloud - boxes[s, k, :3], axis=1).min()
    return result
