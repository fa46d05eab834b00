"""Procedural pictures: small drawings of one of ten flat figures each; drawings, not photographs.

A picture is a figure (the class) at a random place, size and turn, filled with one colour that changes across it, on a
ground of two colours and soft stripes, with specks and noise. A hidden part can be predicted from its
surroundings: ground, filling and outline continue. No class shows in a single patch or in a colour.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import Field

from replications.parsing import parse
from replications.spec import Strict

TITLE = "procedural pictures"
NOTE = "drawings of ten figures, not photographs"
TRAIN, VALIDATION, TEST = 0, 1, 2
BATCH = 256

Plane = np.ndarray


class Options(Strict):
    """Options of a set: images of each split, all classes equally often."""

    image_size: int = Field(24, ge=8, le=256, description="pixels, square")
    train: int = Field(ge=10)
    validation: int = Field(ge=0)
    test: int = Field(ge=10)
    noise: float = Field(0.02, ge=0, le=1, description="standard deviation of the pixel noise, of the full scale")
    turn: float = Field(0.5, ge=0, le=np.pi, description="of a figure, at most, radians")
    shift: float = Field(0.2, ge=0, le=0.4, description="of a figure's centre along each axis, at most, half sides")
    smallest: float = Field(0.55, gt=0, le=0.85, description="radius of a figure, in half sides; the largest is 0.85")
    stripes: float = Field(0.06, ge=0, le=0.5, description="amplitude of the ground's stripes, of the full scale")
    contrast: float = Field(0.0, ge=0, le=0.4, description="channels are this far below and above one half, at least")
    specks: int = Field(3, ge=0, description="small dots of other colours, at most")
    oversample: int = Field(3, ge=1, le=8, description="points a pixel and axis; their mean is the pixel")
    seed: int = Field(0, ge=0, lt=1 << 63)


def _polygon(corners: int, u: Plane, v: Plane) -> Plane:
    """Distance-like function of a regular polygon with circumradius 1: negative inside."""
    sector = 2 * np.pi / corners
    angle = (np.arctan2(v, u) + np.pi) % sector - sector / 2
    return np.hypot(u, v) * np.cos(angle) - np.cos(sector / 2)


def _star(u: Plane, v: Plane) -> Plane:
    sector = 2 * np.pi / 5
    angle = np.abs((np.arctan2(v, u) + np.pi) % sector - sector / 2) / (sector / 2)
    return np.hypot(u, v) - (1.15 - 0.72 * angle)


def _box(u: Plane, v: Plane, across: float, down: float) -> Plane:
    return np.maximum(np.abs(u) - across, np.abs(v) - down)


# Figures in their own coordinates, about 2 across; negative inside. None changes its class in a mirror.
FIGURES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": lambda u, v: np.hypot(u, v) - 0.8,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.75) - 0.22,
    "half disc": lambda u, v: np.maximum(np.hypot(u, v + 0.35) - 1.0, -(v + 0.35)),
    "crescent": lambda u, v: np.maximum(np.hypot(u, v) - 0.95, 0.72 - np.hypot(u - 0.5, v)),
    "triangle": lambda u, v: _polygon(3, u, v) / 1.15,
    "square": lambda u, v: _box(u, v, 0.72, 0.72),
    "star": _star,
    "cross": lambda u, v: np.minimum(_box(u, v, 0.95, 0.3), _box(u, v, 0.3, 0.95)),
    "bar": lambda u, v: _box(u, v, 1.0, 0.36),
    "corner": lambda u, v: np.minimum(_box(u, v + 0.6, 0.9, 0.3), _box(u + 0.6, v, 0.3, 0.9)),
}


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Draw ``images`` uint8 [N, S, S, 3], ``label`` int32 [N] and ``split`` int8 [N] into `target`."""
    wanted = parse(Options, options, "options of the procedural pictures")
    counts = (wanted.train, wanted.validation, wanted.test)
    split = np.repeat(np.arange(3, dtype=np.int8), counts)
    label = np.concatenate([np.arange(count) % len(FIGURES) for count in counts]).astype(np.int32)
    size = wanted.image_size
    images = np.lib.format.open_memmap(target / "images.npy", "w+", np.uint8, (len(label), size, size, 3))
    for start in range(0, len(label), BATCH):
        rows = slice(start, start + BATCH)
        images[rows] = draw_images(label[rows], wanted, np.random.default_rng([wanted.seed, start]))
    images.flush()
    np.save(target / "label.npy", label)
    np.save(target / "split.npy", split)
    return {"title": TITLE, "note": NOTE, "classes": list(FIGURES), "options": wanted.model_dump()}


def draw_images(label: np.ndarray, options: Options, numbers: np.random.Generator) -> np.ndarray:
    """Draw one picture for each label ``[n]``: uint8 ``[n, S, S, 3]``."""
    n, points = len(label), options.image_size * options.oversample
    axis = (np.arange(points, dtype=np.float32) + 0.5) * (2 / points) - 1
    x, y = axis[None, None, :], axis[None, :, None]

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return numbers.uniform(low, high, (n, *(shape or (1, 1)))).astype(np.float32)

    turn, radius = uniform(-options.turn, options.turn), uniform(options.smallest, 0.85)
    dx, dy = x - uniform(-options.shift, options.shift), y - uniform(-options.shift, options.shift)
    u = (np.cos(turn) * dx + np.sin(turn) * dy) / radius
    v = (np.cos(turn) * dy - np.sin(turn) * dx) / radius
    inside = np.empty((n, points, points), bool)
    for index, figure in enumerate(FIGURES.values()):
        own = label == index
        inside[own] = figure(u[own], v[own]) < 0

    slant, filled = uniform(0, 2 * np.pi), uniform(0, 2 * np.pi)
    along = np.cos(slant) * x + np.sin(slant) * y
    stripes = options.stripes * np.sin(along * uniform(4, 14) + uniform(0, 2 * np.pi))
    blend = np.clip(0.5 + 0.5 * along, 0, 1)[..., None]
    # Figures are lighter than their ground, whatever the colours.
    dark = 0.5 - options.contrast
    first, second = uniform(0.0, dark, 1, 1, 3), uniform(0.0, dark, 1, 1, 3)
    colour = uniform(1 - dark, 1.0, 1, 1, 3)
    picture = first * blend + second * (1 - blend) + stripes[..., None]
    shade = 0.15 * (np.cos(filled) * u + np.sin(filled) * v)
    picture = np.where(inside[..., None], colour + shade[..., None], picture)
    for _ in range(options.specks):
        there = uniform(0, 1) < 0.5
        speck = np.hypot(x - uniform(-1, 1), y - uniform(-1, 1)) < uniform(0.05, 0.12)
        picture = np.where((speck & there)[..., None], uniform(0, 1, 1, 1, 3), picture)
    size, fold = options.image_size, options.oversample
    pixels = picture.reshape(n, size, fold, size, fold, 3).mean((2, 4))
    pixels += options.noise * numbers.standard_normal(pixels.shape, dtype=np.float32)
    return (pixels * 255).round().clip(0, 255).astype(np.uint8)
