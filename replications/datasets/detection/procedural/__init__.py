"""Procedural scenes for object detection: textured shapes that hide one another, on cluttered ground.

A class is a shape; colour, texture, size, turn and place say nothing of it. Objects are annotated as COCO does it: the
box and the mask of what is visible, its area, and a crowd flag for a swarm of small shapes that is marked as one. An
image comes from its own random stream, so that it is the same in every set of the same options, whatever the
number of images, and equal byte for byte on every machine (raw words of Philox, exact arithmetic).
"""

from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from replications.datasets.detection.procedural.scene import SHAPES, draw_scene
from replications.datasets.rows import cut, fill_rows
from replications.parsing import parse
from replications.spec import Strict

IMAGES_A_JOB = 250
WORTH_A_POOL = 8000  # images; below, starting processes costs more than it saves


class Options(Strict):
    """Options of a set. Lengths are in pixels, areas in square pixels."""

    image_size: int = Field(64, ge=24, le=512)
    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    test: int = Field(ge=1)
    classes: int = Field(4, ge=1, le=len(SHAPES))
    most_objects: int = Field(4, ge=1, le=60)
    radii: tuple[float, float] = Field((0.06, 0.28), description="half sizes, as fractions of the image")
    crowds: float = Field(0.05, ge=0, le=1, description="share of the images with a swarm")
    empty: float = Field(0.02, ge=0, le=1, description="share of the images without any object")
    clutter: int = Field(3, ge=0, le=20, description="bars of no class, behind the objects")
    noise: float = Field(10.0, ge=0, le=60, description="pixel noise, in grey levels")
    area_limits: tuple[float, float] = Field(description="above the first an object is medium, above the second large")
    seed: int = Field(0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _rising(self) -> "Options":
        for name, (low, high) in (("radii", self.radii), ("area_limits", self.area_limits)):
            if not 0 < low < high:
                raise ValueError(f"{name} must be two rising numbers above 0, not {low}, {high}")
        return self


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Draw a set into `target` in the form of `replications.datasets.detection.form`; `files` is empty."""
    wanted = parse(Options, options, "options of the procedural scenes")
    counts = (wanted.train, wanted.validation, wanted.test)
    total, side, most = sum(counts), wanted.image_size, wanted.most_objects + 1  # the last may be a crowd
    np.save(target / "split.npy", np.repeat(np.arange(3, dtype=np.int8), counts))
    np.save(target / "image_id.npy", np.arange(total, dtype=np.int64))
    np.save(target / "image_size.npy", np.full((total, 2), side, np.int32))
    forms = {
        "images": ((total, side, side, 3), "uint8"),
        "boxes": ((total, most, 4), "float32"),
        "labels": ((total, most), "int16"),
        "crowd": ((total, most), "bool"),
        "area": ((total, most), "float32"),
        "masks": ((total, most, -(-side * side // 8)), "uint8"),
    }
    jobs = cut(range(total), IMAGES_A_JOB)
    processes = workers if total > WORTH_A_POOL else 1
    fill_rows(target, forms, jobs, partial(_draw_job, wanted), processes, "drawing scenes")
    return {
        "classes": list(SHAPES[: wanted.classes]),
        "category_ids": list(range(1, wanted.classes + 1)),
        "area_limits": list(wanted.area_limits),
        "images": total,
        "options": wanted.model_dump(mode="json"),
    }


def _draw_job(options: Options, rows: range) -> dict[str, np.ndarray]:
    side, most = options.image_size, options.most_objects + 1
    made = {
        "images": np.empty((len(rows), side, side, 3), np.uint8),
        "boxes": np.zeros((len(rows), most, 4), np.float32),
        "labels": np.full((len(rows), most), -1, np.int16),
        "crowd": np.zeros((len(rows), most), bool),
        "area": np.zeros((len(rows), most), np.float32),
        "masks": np.zeros((len(rows), most, -(-side * side // 8)), np.uint8),
    }
    for place, row in enumerate(rows):
        image, objects = draw_scene(options, row)
        made["images"][place] = image
        for index, (label, mask, crowd) in enumerate(objects):
            ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            made["boxes"][place, index] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
            made["labels"][place, index], made["crowd"][place, index] = label, crowd
            made["area"][place, index] = mask.sum()
            made["masks"][place, index] = np.packbits(mask)
    return made
