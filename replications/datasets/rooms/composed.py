"""Composed rooms: layout and camera of the procedural rooms, furnished with real shapes of ModelNet10, voxel-derived.

A shape is a 32³ solid (z up), turned so that its back is at −x, scaled as a whole so that its height is usual for its
class. What the camera sees is the first occupied voxel along each ray. Training rooms have training shapes, test rooms
test shapes; test shapes whose grid is also a training shape's are left out. Monitors stand on other furniture.

The rooms are composed, the shapes are 32³ voxels: a number on them says nothing about scans of real rooms.
"""

from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from pydantic import Field

from replications.datasets.points.modelnet_voxels import CLASSES, read_grids
from replications.datasets.rooms.camera import Hit, Solid, slabs
from replications.datasets.rooms.layout import View, draw_view, place
from replications.datasets.rooms.scenes import SceneOptions, draw_until_seen, write_scenes
from replications.errors import UserError
from replications.parsing import parse

# Usual extents in metres (axis after turning, least, most): the height, or the length where that is better known.
USUAL = {
    "bathtub": (1, 1.5, 1.8), "bed": (0, 1.9, 2.2), "chair": (2, 0.75, 1.0), "desk": (2, 0.7, 0.85),
    "dresser": (2, 0.8, 1.3), "monitor": (2, 0.4, 0.6), "night_stand": (2, 0.5, 0.7), "sofa": (1, 1.5, 2.3),
    "table": (2, 0.6, 0.78), "toilet": (2, 0.7, 0.85),
}  # fmt: skip
BACK_AT_Y = {"bed", "chair", "toilet"}  # in the file; of the others that have a back it is at +x
AGAINST_WALL = {"bathtub", "bed", "desk", "dresser", "night_stand", "sofa", "toilet"}
CARRIERS = {"desk", "table", "dresser", "night_stand"}
LONGEST = 3.0  # metres; longer shapes are scaled down
GRID = 32
STEPS = 96  # places along a ray inside a shape's box


class Options(SceneOptions):
    """Options of a set of composed rooms."""

    validation_shapes: float = Field(0.05, gt=0, lt=1, description="share of the training shapes, for validation")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write a set of scenes (``rooms.scenes.write_scenes``) from the source ``voxels``: see `read_shapes`."""
    wanted = parse(Options, options, "options of the composed rooms")
    draw = partial(draw_scene, wanted, files["voxels"])
    facts = write_scenes(target, wanted, CLASSES, draw, workers, "composing rooms")
    return facts | {"shapes": [[len(of) for of in part] for part in _shapes(files["voxels"], wanted.validation_shapes)]}


def draw_scene(options: Options, voxels: Path, split: int, index: int) -> dict[str, np.ndarray]:
    """Return the arrays of one scene of a split."""
    shapes = _shapes(voxels, options.validation_shapes)[split]
    rng = np.random.default_rng([options.seed, split, index])
    return draw_until_seen(options, partial(_furnish, options, shapes), rng)


@lru_cache(maxsize=1)
def _shapes(voxels: Path, validation: float) -> list[list[np.ndarray]]:
    return read_shapes(voxels, validation)


def read_shapes(voxels: Path, validation: float) -> list[list[np.ndarray]]:
    """Return by split and class the solids, bool ``[n, 32, 32, 32]``, cut to nothing but non-empty and distinct ones.

    The file is an npz of ``X_train``, ``y_train``, ``X_test``, ``y_test``. Raises UserError where it is another.
    """
    stored = read_grids(voxels)
    train, test = (grids.reshape(-1, GRID, GRID, GRID) > 0 for grids in (stored[0], stored[2]))
    known = {np.packbits(grid).tobytes() for grid in train}
    there = np.array([bool(grid.any()) for grid in train])
    fresh = np.array([bool(grid.any()) and np.packbits(grid).tobytes() not in known for grid in test])
    by_split: list[list[np.ndarray]] = [[], [], []]
    for label, name in enumerate(CLASSES):
        learned, tested = train[there & (stored[1] == label)], test[fresh & (stored[3] == label)]
        held_out = max(1, round(len(learned) * validation))
        if len(learned) <= held_out or not len(tested):
            raise UserError(f"{voxels} has too few shapes of the class {name}")
        for part, own in zip(by_split, (learned[held_out:], learned[:held_out], tested), strict=True):
            part.append(own)
    return by_split


def fitted(grid: np.ndarray, label: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the occupied part of a grid, its back at −x, and its size ``[3]`` in metres."""
    grid = grid.transpose(1, 0, 2)[::-1] if CLASSES[label] in BACK_AT_Y else grid[::-1, ::-1]
    occupied = np.argwhere(grid)
    low, high = occupied.min(0), occupied.max(0) + 1
    solid = grid[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    axis, least, most = USUAL[CLASSES[label]]
    voxel = rng.uniform(least, most) / solid.shape[axis]
    voxel = min(voxel, LONGEST / max(solid.shape))
    return solid, voxel * np.array(solid.shape, float)


def hit_voxels(solid: np.ndarray, size: np.ndarray) -> Hit:
    """Return the `Hit` of a solid ``[i, j, k]`` that fills a box of `size`: the first occupied voxel along the ray."""
    half = size[None] / 2
    shape = np.array(solid.shape)

    def hit(origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        near, far = (t[:, 0] for t in slabs(origin, directions, -half, half))
        near = np.maximum(near, 0)
        share = (np.arange(STEPS) + 0.5) / STEPS
        t = near[:, None] + (far - near)[:, None] * share
        place = origin + t[..., None] * directions[:, None]
        voxel = np.clip(((place / size + 0.5) * shape).astype(int), 0, shape - 1)
        occupied = solid[voxel[..., 0], voxel[..., 1], voxel[..., 2]] & (far > near)[:, None]
        first = occupied.argmax(1)
        return np.where(occupied.any(1), t[np.arange(len(t)), first], np.inf)

    return hit


def _furnish(options: Options, shapes: list[np.ndarray], rng: Generator) -> tuple[View, list[Solid], list[int]]:
    view = draw_view(rng, np.radians(options.view))
    solids: list[Solid] = []
    labels: list[int] = []
    wanted = rng.integers(options.objects[0], options.objects[1] + 1)
    # Monitors come last: they need something to stand on.
    for label in sorted(rng.integers(len(CLASSES), size=wanted), key=lambda label: CLASSES[label] == "monitor"):
        own = shapes[label]
        solid, size = fitted(own[rng.integers(len(own))], label, rng)
        if CLASSES[label] == "monitor":
            box = _put_on(size, solids, labels, rng)
        else:
            box = place(size, CLASSES[label] in AGAINST_WALL, [other.box for other in solids], view, rng)
        if box is not None:
            solids.append(Solid(box, hit_voxels(solid, size)))
            labels.append(int(label))
    return view, solids, labels


def _put_on(size: np.ndarray, solids: list[Solid], labels: list[int], rng: Generator) -> np.ndarray | None:
    """Return a box in the middle of some furniture that can carry it and carries nothing yet; None without any."""
    for number in rng.permutation(len(solids)):
        below = solids[number].box
        taken = any(number != i and (other.box[:2] == below[:2]).all() for i, other in enumerate(solids))
        if CLASSES[labels[number]] in CARRIERS and not taken and (size[:2] <= below[3:5] + 0.1).all():
            return np.array([*below[:2], below[2] + below[5] / 2 + size[2] / 2, *size, below[6]])
    return None
