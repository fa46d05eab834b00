"""Sets of scenes: what simulated rooms of any furniture have in common, and the arrays they are written as."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from pydantic import BaseModel, ConfigDict, Field, model_validator

from replications.datasets.rooms.camera import Solid
from replications.datasets.rooms.layout import View
from replications.datasets.rooms.scene import (
    MEMBERSHIPS,
    Sensor,
    boxes_to_camera,
    farthest_first,
    photograph,
    rounded,
)
from replications.datasets.rows import cut, fill_rows
from replications.errors import UserError

MOST_DRAWS = 100
SCENES_A_JOB = 32
WORTH_A_POOL = 3000  # scenes; below, starting processes costs more than it saves

Furnish = Callable[[Generator], tuple[View, list[Solid], list[int]]]


class SceneOptions(BaseModel):
    """The parameters of a set of simulated rooms, for any furniture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    test: int = Field(ge=1)
    points: int = Field(ge=16, description="stored of each scene, drawn from the pixels")
    pixels: tuple[int, int] = Field(description="of the depth camera, across and down")
    view: float = Field(70.0, gt=10, lt=150, description="horizontal angle of the camera, degrees")
    objects: tuple[int, int] = Field((3, 7), description="pieces that are tried to be placed, least and most")
    min_points: int = Field(10, ge=1, description="of the stored points; a piece with fewer counts as not seen")
    sampled: int = Field(0, ge=0, description="so many points come first, in farthest point order")
    noise: float = Field(0.003, ge=0)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "SceneOptions":
        if self.sampled > self.points:
            raise ValueError(f"sampled {self.sampled} is more than points {self.points}")
        if not 1 <= self.objects[0] <= self.objects[1]:
            raise ValueError(f"objects {list(self.objects)} is not a least and a most")
        return self


def draw_until_seen(options: SceneOptions, furnish: Furnish, rng: Generator) -> dict[str, np.ndarray]:
    """Draw rooms until one shows an object, and return its arrays.

    ``points`` float32 [P, 3], ``inside`` int8 [P, 3], ``boxes`` float32 [m, 7], ``label`` int8 [m].
    """
    for _ in range(MOST_DRAWS):
        view, solids, labels = furnish(rng)
        sensor = Sensor(*options.pixels, options.noise)
        points, seen = photograph(solids, view, sensor, rng)
        if len(points) < options.points:
            continue
        chosen = rng.permutation(len(points))[: options.points]
        points, seen = rounded(points[chosen]), seen[chosen]
        counts = np.bincount(seen[seen >= 0], minlength=len(solids))
        visible = np.flatnonzero(counts >= options.min_points)
        if len(visible):
            break
    else:
        raise UserError(
            f"of {MOST_DRAWS} rooms none showed an object on {options.points} points: "
            "raise 'pixels' or lower 'min_points'"
        )
    if options.sampled:
        order = farthest_first(points, options.sampled)
        points, seen = points[order], seen[order]
    number = np.full(len(solids) + 1, -1)
    number[visible] = np.arange(len(visible))
    inside = np.full((options.points, MEMBERSHIPS), -1, np.int8)
    inside[:, 0] = number[seen]
    boxes = boxes_to_camera(np.stack([solids[i].box for i in visible]), view)
    label = np.array([labels[i] for i in visible], np.int8)
    return {"points": points, "inside": inside, "boxes": rounded(boxes), "label": label}


def write_scenes(
    target: Path,
    options: SceneOptions,
    classes: Sequence[str],
    draw: Callable[[int, int], dict[str, np.ndarray]],
    workers: int,
    title: str,
) -> dict:
    """Write the arrays of all scenes and return what is known of them.

    ``points`` float32 [S, P, 3]: camera's frame, metres, z up from the floor. ``inside`` int8 [S, P, 3]: the objects
    that a point belongs to, −1 none. ``boxes`` float32 [S, m, 7]: centre, size, heading. ``label`` int8 [S, m]: class,
    −1 where there is no object. ``split`` int8 [S]: 0 train, 1 validation, 2 test.
    """
    counts = (options.train, options.validation, options.test)
    split = np.repeat(np.arange(3, dtype=np.int8), counts)
    index = np.concatenate([np.arange(count) for count in counts])
    total, most = len(split), options.objects[1]
    fill_rows(
        target,
        {
            "points": ((total, options.points, 3), "float32"),
            "inside": ((total, options.points, MEMBERSHIPS), "int8"),
            "boxes": ((total, most, 7), "float32"),
            "label": ((total, most), "int8"),
        },
        cut(np.stack([split, index], axis=1), SCENES_A_JOB),
        partial(_draw_rows, draw, most),
        workers if total > WORTH_A_POOL else 1,
        title,
    )
    np.save(target / "split.npy", split)
    return describe(target, classes, options.sampled, oriented=True) | {"options": options.model_dump(mode="json")}


def _draw_rows(draw: Callable, most: int, rows: np.ndarray) -> dict[str, np.ndarray]:
    scenes = [padded(draw(int(split), int(index)), most) for split, index in rows]
    return {name: np.stack([scene[name] for scene in scenes]) for name in scenes[0]}


def padded(scene: dict[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """Fill boxes with zeros and labels with −1 up to `most` objects."""
    room = most - len(scene["label"])
    return scene | {
        "boxes": np.pad(scene["boxes"], ((0, room), (0, 0))),
        "label": np.pad(scene["label"], (0, room), constant_values=-1),
    }


def describe(target: Path, classes: Sequence[str], sampled: int, oriented: bool) -> dict:
    """Return what a task must know of written scenes: classes, the mean size of each in the training part, counts.

    Raises UserError where a class has no object in the training part: it would have no mean size.
    """
    split, label = np.load(target / "split.npy"), np.load(target / "label.npy")
    boxes = np.load(target / "boxes.npy", mmap_mode="r")
    train = np.flatnonzero(split == 0)
    sizes = []
    for number, name in enumerate(classes):
        own = boxes[train][label[train] == number]
        if not len(own):
            raise UserError(f"no training scene has a {name}: it would have no mean size; take more scenes")
        sizes.append([round(float(value), 4) for value in own[:, 3:6].mean(0, dtype=np.float64)])
    return {
        "classes": list(classes),
        "mean_sizes": sizes,
        "oriented": oriented,
        "sampled": sampled,
        "scenes": len(split),
        "objects": int((label >= 0).sum()),
    }
