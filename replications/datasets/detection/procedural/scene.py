"""One scene: its ground, its clutter, its objects from back to front.

Arithmetic is exact or correctly rounded (+, -, *, /, comparisons): no sine, exponential or root, whose last bits differ
between machines. Turns are given by the tangent of half their angle.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from replications.datasets.detection.procedural import Options

SHAPES = ("disc", "square", "triangle", "cross", "ring")
TRIES = 8  # for a place where an object hides no other too much
LEAST_VISIBLE = 0.5  # of each object
LEAST_INSIDE = 0.75  # of an object's pixels, in the image
SMALLEST_AREA = 8  # pixels
PALETTE = ((210, 60, 60), (60, 190, 70), (70, 80, 220), (215, 200, 60), (200, 70, 200))  # of the shapes above
STRAY = 55
SWARM = 7  # small shapes in a crowd

Object = tuple[int, np.ndarray, bool]  # class, mask of what is visible, crowd


class Draws:
    """Uniform numbers in [0, 1) of a named stream, exact: 24 bits of raw Philox words, the same in every NumPy."""

    def __init__(self, seed: int, row: int):
        self._raw = np.random.Philox(key=np.array([seed, row], np.uint64))

    def many(self, *shape: int) -> np.ndarray:
        words = self._raw.random_raw(int(np.prod(shape)))
        return ((words >> np.uint64(40)).astype(np.float64) * 2.0**-24).reshape(shape)

    def one(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + float(self.many(1)[0]) * (high - low)

    def below(self, n: int) -> int:
        return int(self.one() * n)


def draw_scene(options: "Options", row: int) -> tuple[np.ndarray, list[Object]]:
    """Return image number `row`, uint8 ``[S, S, 3]``, and its objects; a crowd comes last."""
    draws, side = Draws(options.seed, row), options.image_size
    y, x = np.mgrid[0:side, 0:side] + 0.5
    picture = _ground(draws, x, y, side)
    for _ in range(options.clutter):
        _bar(draws, picture, x, y, side)
    empty = draws.one() < options.empty
    swarm = draws.one() < options.crowds
    objects: list[Object] = []
    if not empty and swarm:
        objects.append(_swarm(draws, picture, x, y, side, options))
    visible: list[np.ndarray] = []
    whole: list[int] = []
    labels: list[int] = []
    for _ in range(0 if empty else 1 + draws.below(options.most_objects)):
        label = draws.below(options.classes)
        for _ in range(TRIES):
            mask, u, v, full = _shape(draws, x, y, side, label, options.radii)
            pixels = int(mask.sum())
            if pixels < max(SMALLEST_AREA, LEAST_INSIDE * full):
                continue
            after = [own & ~mask for own in visible]
            hidden = any(int(left.sum()) < LEAST_VISIBLE * size for left, size in zip(after, whole, strict=True))
            over_crowd = objects and int((objects[0][1] & mask).sum()) > 0
            if hidden or over_crowd:
                continue
            visible = [*after, mask]
            whole.append(pixels)
            labels.append(label)
            picture[mask] = _texture(draws, u, v, label)[mask]
            break
    objects = [(label, mask, False) for label, mask in zip(labels, visible, strict=True)] + objects
    noise = (draws.many(side, side, 3) - 0.5) * (2 * options.noise)
    return np.clip(np.floor(picture + noise + 0.5), 0, 255).astype(np.uint8), objects


def _ground(draws: Draws, x: np.ndarray, y: np.ndarray, side: int) -> np.ndarray:
    """Two dull colours that pass into each other, and blotches."""
    grey, tint = draws.one(60, 190), (draws.many(3) - 0.5) * 30
    slope = (draws.one(-40, 40) * x + draws.one(-40, 40) * y) / side
    cells = 8
    blotch = (draws.many(cells, cells) - 0.5) * 40
    index = np.arange(side) * cells // side
    return (grey + slope + blotch[np.ix_(index, index)])[..., None] + tint


def _bar(draws: Draws, picture: np.ndarray, x: np.ndarray, y: np.ndarray, side: int) -> None:
    """A thin bar across the ground: of no class."""
    u, _ = _turned(draws, x - draws.one(0, side), y - draws.one(0, side), 1.0)
    width = draws.one(0.3, 1.2) * side / 64
    picture[np.abs(u) < width] = draws.many(3) * 160 + 40


def _turned(draws: Draws, x: np.ndarray, y: np.ndarray, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn coordinates by an angle whose half has a tangent of at most `most`."""
    t = draws.one(-most, most)
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return x * cosine + y * sine, y * cosine - x * sine


def _shape(draws: Draws, x: np.ndarray, y: np.ndarray, side: int, label: int, radii: tuple[float, float]):
    """Return the mask of a shape somewhere, its own coordinates, and how many pixels it would have in all."""
    low, high = radii
    share = draws.one()
    radius = (low + (high - low) * share) * side
    ratio = draws.one(0.8, 1.25)
    centre_x, centre_y = draws.one(0.6 * radius, side - 0.6 * radius), draws.one(0.6 * radius, side - 0.6 * radius)
    u, v = _turned(draws, x - centre_x, y - centre_y, 0.2)
    u, v = u / (radius * ratio), v * ratio / radius
    mask = inside(SHAPES[label], u, v)
    return mask, u * radius, v * radius, AREAS[label] * radius * radius


AREAS = (3.14, 3.24, 1.75, 2.2, 2.8)  # of the shapes below, in their own coordinates, roughly


def inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return which points lie in a shape of half size 1."""
    across, down = np.abs(u), np.abs(v)
    if shape == "disc":
        return u * u + v * v < 1
    if shape == "square":
        return (across < 0.9) & (down < 0.9)
    if shape == "triangle":
        return (v < 0.9) & (v > 1.85 * across - 1)
    if shape == "cross":
        return (np.minimum(across, down) < 0.33) & (np.maximum(across, down) < 1)
    squared = u * u + v * v
    return (squared < 1) & (squared > 0.2)


def _texture(draws: Draws, u: np.ndarray, v: np.ndarray, label: int) -> np.ndarray:
    """Plain, striped or checked, in two shades of the class's colour ``[S, S, 3]``."""
    kind, period = draws.below(3), draws.one(3.0, 7.0)
    first, second = _colour(draws, label), _colour(draws, label)
    stripes = np.floor(u / period)
    cells = stripes + (np.floor(v / period) if kind == 2 else 0)
    other = (cells % 2 == 1) & (kind > 0)
    return np.where(other[..., None], second, first)


def _colour(draws: Draws, label: int) -> np.ndarray:
    """A shade of the class's colour: its palette's entry, moved by up to `STRAY` grey levels in each channel."""
    return np.clip(np.array(PALETTE[label]) + (draws.many(3) - 0.5) * (2 * STRAY), 0, 255)


def _swarm(draws: Draws, picture: np.ndarray, x: np.ndarray, y: np.ndarray, side: int, options: "Options") -> Object:
    """Paint a swarm of small shapes of one class that are annotated together."""
    label, reach = draws.below(options.classes), 0.15 * side
    centre_x, centre_y = draws.one(reach, side - reach), draws.one(reach, side - reach)
    together = np.zeros((side, side), bool)
    radius = options.radii[0] * side * 0.7
    for _ in range(SWARM):
        u = (x - centre_x - draws.one(-reach, reach)) / radius
        v = (y - centre_y - draws.one(-reach, reach)) / radius
        mask = inside(SHAPES[label], u, v)
        picture[mask] = _texture(draws, u * radius, v * radius, label)[mask]
        together |= mask
    return label, together, True
