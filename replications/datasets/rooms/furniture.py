"""Furniture as a few solids: each class is a small program that draws its measures and puts parts together.

A part is a row of 7: kind (`BOX` or `CYLINDER`, upright), centre x y z, size x y z, in metres; x points to the front, y
to the side, z up from the floor. Parts may overlap. Measures are everyday ones.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

BOX, CYLINDER = 0.0, 1.0

Part = tuple[float, ...]


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Part:
    """A box from its least to its greatest corner."""
    return (
        BOX,
        *((a + b) / 2 for a, b in zip(low, high, strict=True)),
        *(b - a for a, b in zip(low, high, strict=True)),
    )


def post(x: float, y: float, diameter: float, bottom: float, top: float) -> Part:
    """An upright cylinder."""
    return (CYLINDER, x, y, (bottom + top) / 2, diameter, diameter, top - bottom)


def sides(depth: float, width: float, thick: float, bottom: float, top: float) -> list[Part]:
    """Two upright boards at both ends of a width."""
    x, y = depth / 2, width / 2
    return [box((-x, -y, bottom), (x, thick - y, top)), box((-x, y - thick, bottom), (x, y, top))]


def legs(depth: float, width: float, height: float, thick: float, inset: float) -> list[Part]:
    """Four square legs below a top of `depth` x `width`."""
    x, y, half = depth / 2 - inset, width / 2 - inset, thick / 2
    return [
        box((sx * x - half, sy * y - half, 0.0), (sx * x + half, sy * y + half, height))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]


def chair(rng: Generator) -> list[Part]:
    depth, width, seat, top = (rng.uniform(*r) for r in ((0.42, 0.52), (0.42, 0.52), (0.40, 0.48), (0.80, 1.0)))
    parts = [
        box((-depth / 2, -width / 2, seat - 0.05), (depth / 2, width / 2, seat)),
        box((-depth / 2, -width / 2, seat), (-depth / 2 + 0.05, width / 2, top)),
    ]
    if rng.random() < 0.3:
        parts += [
            box((-depth / 2, s * width / 2 - 0.025, seat + 0.18), (depth / 3, s * width / 2 + 0.025, seat + 0.22))
            for s in (-1, 1)
        ]
    if rng.random() < 0.25:
        return [*parts, post(0, 0, 0.08, 0.05, seat), post(0, 0, depth, 0.0, 0.05)]
    return [*parts, *legs(depth, width, seat - 0.05, 0.05, 0.03)]


def table(rng: Generator) -> list[Part]:
    depth, width, height = (rng.uniform(*r) for r in ((0.7, 1.0), (1.0, 1.8), (0.68, 0.78)))
    if rng.random() < 0.3:
        return [post(0, 0, depth + 0.2, height - 0.04, height), post(0, 0, 0.12, 0, height), post(0, 0, 0.5, 0, 0.04)]
    top = box((-depth / 2, -width / 2, height - 0.04), (depth / 2, width / 2, height))
    return [top, *legs(depth, width, height - 0.04, 0.07, 0.06)]


def sofa(rng: Generator) -> list[Part]:
    depth, width, seat, top, arm = (
        rng.uniform(*r) for r in ((0.8, 1.0), (1.5, 2.2), (0.38, 0.46), (0.75, 0.95), (0.12, 0.22))
    )
    return [
        box((-depth / 2, -width / 2, 0.06), (depth / 2, width / 2, seat)),
        box((-depth / 2, -width / 2, seat), (-depth / 2 + 0.22, width / 2, top)),
        *sides(depth, width, arm, 0.06, 0.6),
    ]


def corner_sofa(rng: Generator) -> list[Part]:
    """Two seats at a right angle: the middle of the whole lies over the floor that they enclose."""
    depth, width, seat, top, deep = (
        rng.uniform(*r) for r in ((2.0, 2.5), (2.3, 2.9), (0.38, 0.46), (0.75, 0.95), (0.7, 0.85))
    )
    x, y, side = depth / 2, width / 2, rng.choice((-1, 1))
    low, high = sorted((side * y, side * (y - deep)))
    back = sorted((side * y, side * (y - 0.2)))
    return [
        box((-x, -y, 0.06), (deep - x, y, seat)),
        box((-x, -y, seat), (0.2 - x, y, top)),
        box((-x, low, 0.06), (x, high, seat)),
        box((-x, back[0], seat), (x, back[1], top)),
    ]


def bed(rng: Generator) -> list[Part]:
    length, width, top, head = (rng.uniform(*r) for r in ((1.9, 2.15), (1.0, 1.8), (0.42, 0.58), (0.8, 1.1)))
    parts = [
        box((-length / 2, -width / 2, 0.12), (length / 2, width / 2, top)),
        box((-length / 2 - 0.06, -width / 2, 0.0), (-length / 2, width / 2, head)),
    ]
    if rng.random() < 0.4:
        parts.append(box((length / 2, -width / 2, 0.0), (length / 2 + 0.05, width / 2, top + 0.08)))
    return [*parts, *legs(length, width, 0.12, 0.08, 0.1)]


def wardrobe(rng: Generator) -> list[Part]:
    depth, width, height = (rng.uniform(*r) for r in ((0.5, 0.65), (0.9, 1.6), (1.7, 2.1)))
    return [box((-depth / 2, -width / 2, 0.0), (depth / 2, width / 2, height))]


def shelf(rng: Generator) -> list[Part]:
    depth, width, height = (rng.uniform(*r) for r in ((0.28, 0.4), (0.7, 1.2), (1.2, 1.9)))
    boards = int(rng.integers(3, 6))
    parts = sides(depth, width, 0.03, 0.0, height)
    parts.append(box((-depth / 2, -width / 2, 0.0), (-depth / 2 + 0.02, width / 2, height)))
    levels = np.linspace(0.05, height, boards + 1)
    return [*parts, *(box((-depth / 2, -width / 2, z - 0.03), (depth / 2, width / 2, z)) for z in levels)]


def nightstand(rng: Generator) -> list[Part]:
    depth, width, height = (rng.uniform(*r) for r in ((0.38, 0.48), (0.4, 0.6), (0.45, 0.65)))
    body = box((-depth / 2, -width / 2, 0.1), (depth / 2, width / 2, height))
    return [body, *legs(depth, width, 0.1, 0.05, 0.04)]


def bathtub(rng: Generator) -> list[Part]:
    depth, width, height, rim = (rng.uniform(*r) for r in ((0.7, 0.85), (1.5, 1.8), (0.5, 0.62), (0.06, 0.1)))
    x, y = depth / 2, width / 2
    return [
        box((-x, -y, 0.0), (x, y, 0.12)),
        box((-x, -y, 0.0), (-x + rim, y, height)),
        box((x - rim, -y, 0.0), (x, y, height)),
        box((-x, -y, 0.0), (x, -y + rim, height)),
        box((-x, y - rim, 0.0), (x, y, height)),
    ]


# Name -> its program, and whether it stands with its back to a wall.
FURNITURE: dict[str, tuple[Callable[[Generator], list[Part]], bool]] = {
    "chair": (chair, False),
    "table": (table, False),
    "sofa": (sofa, True),
    "corner_sofa": (corner_sofa, True),
    "bed": (bed, True),
    "wardrobe": (wardrobe, True),
    "shelf": (shelf, True),
    "nightstand": (nightstand, True),
    "bathtub": (bathtub, True),
}


def draw_parts(name: str, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return parts ``[n, 7]`` centred on the middle of their common box, and that box's size ``[3]``."""
    parts = np.array(FURNITURE[name][0](rng))
    low, high = (parts[:, 1:4] - parts[:, 4:] / 2).min(0), (parts[:, 1:4] + parts[:, 4:] / 2).max(0)
    parts[:, 1:4] -= (low + high) / 2
    return parts, high - low
