"""A shape is a list of solid primitives; its surface is sampled by area, with normals. numpy only.

Lengths are in metres, z is up, and a shape stands on z = 0 around the z axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BOX, CYLINDER, CONE, SPHERE = range(4)


@dataclass(frozen=True)
class Part:
    """One primitive. `centre` is the middle of its box; `size` are half extents along its own axes.

    A cylinder and a cone stand along z with radius ``size[0]`` and height ``2 size[2]`` (a cone's tip is up, a negative
    ``size[2]`` turns it over); a sphere has radius ``size[0]``. `name` is the part's label, `rotation` [3, 3] turns the
    primitive about its centre.
    """

    name: str
    kind: int
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    rotation: np.ndarray | None = None


@dataclass(frozen=True)
class Shape:
    """An object of class `label`."""

    label: str
    parts: tuple[Part, ...]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners (lowest, highest) [3] of the axis-aligned box around the shape."""
        low, high = [], []
        for part in self.parts:
            reach = np.abs(np.asarray(part.size, float))
            if part.rotation is not None:
                reach = np.abs(part.rotation) @ reach
            low.append(np.asarray(part.centre) - reach)
            high.append(np.asarray(part.centre) + reach)
        return np.min(low, axis=0), np.max(high, axis=0)


def about(axis: int, angle: float) -> np.ndarray:
    """Return the rotation [3, 3] by `angle` (radians) about a coordinate axis."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[i, i] = rotation[j, j] = c
    rotation[i, j], rotation[j, i] = -s, s
    return rotation


def surface(shapes: Sequence[Shape], count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw `count` points of each shape's surface, uniform by area over all its primitives.

    Returns points [S, count, 3], unit outward normals [S, count, 3] (float64), and the index of the part each lies on
    [S, count]. Primitives may overlap: surface inside another one is sampled too, as in most CAD models.
    """
    most = max(len(shape.parts) for shape in shapes)
    kind = np.zeros((len(shapes), most), np.int64)
    centre, size = np.zeros((len(shapes), most, 3)), np.zeros((len(shapes), most, 3))
    rotation = np.tile(np.eye(3), (len(shapes), most, 1, 1))
    area = np.zeros((len(shapes), most))
    for s, shape in enumerate(shapes):
        for p, part in enumerate(shape.parts):
            kind[s, p], centre[s, p], size[s, p] = part.kind, part.centre, part.size
            area[s, p] = sum(_face_areas(part.kind, np.asarray(part.size, float)))
            if part.rotation is not None:
                rotation[s, p] = part.rotation
    share = np.cumsum(area, axis=1)
    drawn = rng.random((len(shapes), count, 1)) * share[:, None, -1:]
    index = (drawn >= share[:, None, :-1]).sum(axis=2)
    row = np.arange(len(shapes))[:, None]
    local, normal = _on_primitive(kind[row, index], size[row, index], rng.random((len(shapes), count, 3)))
    turn = rotation[row, index]
    points = np.einsum("snij,snj->sni", turn, local) + centre[row, index]
    return points, np.einsum("snij,snj->sni", turn, normal), index


def _face_areas(kind: int, size: np.ndarray) -> tuple[float, ...]:
    """Areas of a primitive's faces: a box's pairs by axis; side and caps of a cylinder; side and base of a cone."""
    a, b, c = np.abs(size)
    if kind == BOX:
        return 8 * b * c, 8 * a * c, 8 * a * b
    if kind == CYLINDER:
        return 4 * np.pi * a * c, 2 * np.pi * a * a
    if kind == CONE:
        return np.pi * a * np.hypot(a, 2 * c), np.pi * a * a
    return (4 * np.pi * a * a,)


def _on_primitive(kind: np.ndarray, size: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map uniform numbers [..., 3] to points and normals [..., 3] on primitives at the origin."""
    points, normals = np.zeros_like(size), np.zeros_like(size)
    for which, place in ((BOX, _box), (CYLINDER, _cylinder), (CONE, _cone), (SPHERE, _sphere)):
        mine = kind == which
        if mine.any():
            points[mine], normals[mine] = place(size[mine], uniform[mine])
    return points, normals


def _box(size: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    areas = np.stack([size[:, 1] * size[:, 2], size[:, 0] * size[:, 2], size[:, 0] * size[:, 1]], axis=1)
    share = np.cumsum(areas, axis=1) / areas.sum(axis=1, keepdims=True)
    axis = (uniform[:, :1] >= share[:, :2]).sum(axis=1)
    row = np.arange(len(size))
    # What is left of the number that chose the pair of faces says which of the two, and then where on it.
    below = np.where(axis > 0, share[row, np.maximum(axis - 1, 0)], 0.0)
    left = np.clip((uniform[:, 0] - below) / (share[row, axis] - below), 0, 1 - 1e-12) * 2
    sign = np.where(left >= 1, 1.0, -1.0)
    points = np.empty_like(size)
    points[row, axis] = sign
    points[row, (axis + 1) % 3] = 2 * uniform[:, 1] - 1
    points[row, (axis + 2) % 3] = 2 * uniform[:, 2] - 1
    normals = np.zeros_like(size)
    normals[row, axis] = sign
    return points * size, normals


def _cylinder(size: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius, height = size[:, 0], np.abs(size[:, 2])
    on_side = uniform[:, 0] < 2 * height / (2 * height + radius)
    angle = 2 * np.pi * uniform[:, 1]
    x, y = np.cos(angle), np.sin(angle)
    cap = np.where(uniform[:, 0] * (2 * height + radius) - 2 * height < radius / 2, -1.0, 1.0)
    reach = np.where(on_side, 1.0, np.sqrt(uniform[:, 2])) * radius
    z = np.where(on_side, 2 * uniform[:, 2] - 1, cap) * height
    points = np.stack([x * reach, y * reach, z], axis=1)
    side = np.stack([x, y, np.zeros_like(x)], axis=1)
    flat = np.stack([np.zeros_like(x), np.zeros_like(x), cap], axis=1)
    return points, np.where(on_side[:, None], side, flat)


def _cone(size: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius, half = size[:, 0], np.abs(size[:, 2])
    slant = np.hypot(radius, 2 * half)
    on_side = uniform[:, 0] < slant / (slant + radius)
    angle = 2 * np.pi * uniform[:, 1]
    x, y = np.cos(angle), np.sin(angle)
    reach = np.sqrt(uniform[:, 2])  # of the radius; on the side also the distance from the tip
    z = np.where(on_side, half * (1 - 2 * reach), -half)
    points = np.stack([x * reach * radius, y * reach * radius, z], axis=1)
    side = np.stack([x * 2 * half, y * 2 * half, radius], axis=1) / slant[:, None]
    flat = np.broadcast_to([0.0, 0.0, -1.0], points.shape)
    normals = np.where(on_side[:, None], side, flat)
    turned = np.where(size[:, 2:] < 0, -1.0, 1.0) * [0.0, 0.0, 1.0] + [1.0, 1.0, 0.0]
    return points * turned, normals * turned


def _sphere(size: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z = 2 * uniform[:, 0] - 1
    angle, ring = 2 * np.pi * uniform[:, 1], np.sqrt(np.maximum(1 - z * z, 0))
    normals = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1)
    return normals * size[:, :1], normals
