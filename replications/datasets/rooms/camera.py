"""A simulated depth camera: which surface does each pixel see first?

Rays are followed in the frame of each object, whose box is tried first: a ray that misses it cannot hit the object.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from replications.datasets.rooms.furniture import CYLINDER

Hit = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Solid:
    """Something to be seen: its box (7: centre, size, heading) and its surface.

    ``hit(origin [3], directions [r, 3])``, in the box's own frame, returns the distance (in lengths of the direction)
    at which each ray meets the surface, inf where it does not.
    """

    box: np.ndarray
    hit: Hit


def camera_rays(eye: np.ndarray, yaw: float, pitch: float, width: int, height: int, view: float) -> np.ndarray:
    """Return the directions ``[height * width, 3]`` of the pixels of a pinhole camera at `eye`; unit depth.

    `yaw` is the heading of the optical axis, `pitch` its fall below the horizon, `view` the horizontal angle, radians.
    """
    reach = np.tan(view / 2)
    across = np.linspace(reach, -reach, width)
    down = np.linspace(reach * height / width, -reach * height / width, height)
    left, up = np.meshgrid(across, down)
    cos, sin = np.cos(pitch), np.sin(pitch)
    forward, z = cos + sin * up, cos * up - sin
    c, s = np.cos(yaw), np.sin(yaw)
    return np.stack([c * forward - s * left, s * forward + c * left, z], axis=-1).reshape(-1, 3)


def slabs(
    origin: np.ndarray, directions: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where rays enter and leave boxes ``low, high [n, 3]``: two ``[r, n]``; enter > leave where they miss."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / directions
    near = np.full((len(directions), len(low)), -np.inf)
    far = -near
    for axis in range(3):
        a = (low[None, :, axis] - origin[axis]) * inverse[:, axis, None]
        b = (high[None, :, axis] - origin[axis]) * inverse[:, axis, None]
        near, far = np.fmax(near, np.fmin(a, b)), np.fmin(far, np.fmax(a, b))
    return near, far


def hit_parts(parts: np.ndarray) -> Hit:
    """Return the `Hit` of an object made of parts ``[n, 7]`` (see ``furniture``)."""
    low, high = parts[:, 1:4] - parts[:, 4:] / 2, parts[:, 1:4] + parts[:, 4:] / 2
    round_ones = np.flatnonzero(parts[:, 0] == CYLINDER)

    def hit(origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        near, far = slabs(origin, directions, low, high)
        for i in round_ones:
            enter, leave = _mantle(origin, directions, parts[i])
            near[:, i], far[:, i] = np.maximum(near[:, i], enter), np.minimum(far[:, i], leave)
        return np.where((near <= far) & (near > 0), near, np.inf).min(1)

    return hit


def _mantle(origin: np.ndarray, directions: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter and leave an upright cylinder without ends."""
    offset = origin[:2] - part[1:3]
    a = np.maximum((directions[:, :2] ** 2).sum(1), 1e-12)
    b = directions[:, :2] @ offset
    inside = b**2 - a * (offset @ offset - (part[4] / 2) ** 2)
    root = np.sqrt(np.maximum(inside, 0))
    enter, leave = (-b - root) / a, (-b + root) / a
    return np.where(inside > 0, enter, np.inf), np.where(inside > 0, leave, -np.inf)


def look(
    eye: np.ndarray, directions: np.ndarray, room: np.ndarray, solids: Sequence[Solid], ceiling: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return depth ``[r]`` (inf: nothing) and the index of the solid seen ``[r]`` (−1: floor or wall).

    `room` is half its size ``[2]``, around the origin; what lies above `ceiling` is not seen.
    """
    limits = np.array([[-room[0], -room[1], 0.0], [room[0], room[1], 1e3]])
    depth = slabs(eye, directions, limits[:1], limits[1:])[1][:, 0]
    seen = np.full(len(directions), -1)
    for index, solid in enumerate(solids):
        cos, sin = np.cos(solid.box[6]), np.sin(solid.box[6])
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        origin, local = turn @ (eye - solid.box[:3]), directions @ turn.T
        half = solid.box[None, 3:6] / 2
        near, far = slabs(origin, local, -half - 1e-9, half + 1e-9)
        rays = np.flatnonzero((near <= far)[:, 0] & (far > 0)[:, 0] & (near[:, 0] < depth))
        if len(rays):
            found = solid.hit(origin, local[rays])
            nearer = found < depth[rays]
            depth[rays[nearer]], seen[rays[nearer]] = found[nearer], index
    depth[eye[2] + depth * directions[:, 2] > ceiling] = np.inf
    return depth, seen
