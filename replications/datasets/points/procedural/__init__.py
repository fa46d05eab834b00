"""Procedural shapes: things made of boxes, cylinders, cones and spheres, as clouds with normals and part labels.

They look like simple CAD models and are none: every number on them is "procedural". A set holds the same shapes
however their surfaces are sampled: ``gradient`` draws the points with a density that falls along a random direction.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.points.clouds import normalise
from replications.datasets.points.procedural.classes import CLASSES, PARTS, draw_shape
from replications.datasets.points.procedural.shape import Shape, about, surface
from replications.parsing import parse

__all__ = ["CLASSES", "PARTS", "Options", "Shape", "about", "draw_shape", "prepare", "sample", "surface"]

SPLITS = ("train", "validation", "test")
SHAPES_AT_ONCE = 64
DECIMALS = 5  # of coordinates in the unit sphere: hides last bits, which differ between machines


class Options(BaseModel):
    """Options of a set. Counts are shapes of each class."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    train: int = Field(ge=1)
    validation: int = Field(ge=0)
    test: int = Field(ge=1)
    points: int = Field(ge=1, description="of each cloud, in random order")
    gradient: float = Field(0.0, ge=0, description="log of the ratio of the highest and lowest density in a cloud")
    noise: float = Field(0.01, ge=0, description="standard deviation of a coordinate, in radii of the cloud")
    turn: float = Field(180.0, ge=0, le=180, description="degrees; shapes are turned about z by up to this much")
    stretch: float = Field(1.3, ge=1, description="each axis is stretched by up to this factor, or shrunk")
    seed: int = Field(0, ge=0)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``points`` and ``normals`` float32 [S, P, 3], ``label`` int16, ``part`` uint8 [S, P], ``split`` int8.

    Raises UserError for a wrong option.
    """
    wanted = parse(Options, options, "options of the procedural shapes")
    names = list(CLASSES)
    first_part = np.cumsum([0, *(len(PARTS[name]) for name in names)])
    rows = [
        (split, label, number)
        for split, count in enumerate((wanted.train, wanted.validation, wanted.test))
        for label in range(len(names))
        for number in range(count)
    ]
    points, normals, parts = [], [], []
    for start in range(0, len(rows), SHAPES_AT_ONCE):
        chosen = rows[start : start + SHAPES_AT_ONCE]
        shapes = [draw_shape(names[r[1]], np.random.default_rng((wanted.seed, 1, *r))) for r in chosen]
        rng = np.random.default_rng((wanted.seed, 2, start))
        cloud, normal, part = sample(shapes, wanted, rng)
        points.append(cloud)
        normals.append(normal)
        own = [[PARTS[shape.label].index(p.name) for p in shape.parts] for shape in shapes]
        parts += [
            first_part[r[1]] + np.asarray(numbers)[index] for r, numbers, index in zip(chosen, own, part, strict=True)
        ]
    np.save(target / "points.npy", np.concatenate(points).round(DECIMALS).astype(np.float32))
    np.save(target / "normals.npy", np.concatenate(normals).round(DECIMALS).astype(np.float32))
    np.save(target / "part.npy", np.stack(parts).astype(np.uint8))
    np.save(target / "label.npy", np.array([r[1] for r in rows], np.int16))
    np.save(target / "split.npy", np.array([r[0] for r in rows], np.int8))
    return {
        "classes": names,
        "parts": [f"{name} {part}" for name in names for part in PARTS[name]],
        "class_parts": [list(range(first_part[i], first_part[i + 1])) for i in range(len(names))],
        "options": wanted.model_dump(),
    }


def sample(
    shapes: list[Shape], options: Options, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points and normals [S, P, 3] of turned, stretched shapes in the unit sphere, and part indices [S, P].

    With a gradient, eight times as many points are drawn and thinned out: the density of what stays falls by the
    factor ``exp(gradient)`` along a random direction.
    """
    angle = np.radians(rng.uniform(-options.turn, options.turn, len(shapes)))
    stretch = np.exp(rng.uniform(-1, 1, (len(shapes), 1, 3)) * np.log(options.stretch))
    surplus = 8 if options.gradient else 1
    points, normals, part = surface(shapes, options.points * surplus, rng)
    points, normals = points * stretch, normals / stretch  # a normal is a covector
    turn = np.stack([about(2, a) for a in angle])
    points, normals = points @ turn.transpose(0, 2, 1), normals @ turn.transpose(0, 2, 1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    if options.gradient:
        direction = rng.normal(size=(len(shapes), 3, 1))
        along = (points @ direction)[..., 0]
        along = (along - along.min(1, keepdims=True)) / np.ptp(along, axis=1, keepdims=True)
        # The largest of log-weight + Gumbel noise are a sample without replacement by those weights.
        kept = np.argsort(options.gradient * along - rng.gumbel(size=along.shape), axis=1)[:, : options.points]
        kept = rng.permuted(kept, axis=1)
        row = np.arange(len(shapes))[:, None]
        points, normals, part = points[row, kept], normals[row, kept], part[row, kept]
    points = normalise(points)
    return points + rng.normal(0, options.noise, points.shape), normals, part
