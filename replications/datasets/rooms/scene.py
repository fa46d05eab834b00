"""From furniture in a room to what a depth camera gives: points, and the amodal boxes of what it sees.

The frame is the camera's, upright: the origin lies on the floor below it, y points where it looks, z up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from replications.datasets.rooms.camera import Solid, camera_rays, look
from replications.datasets.rooms.layout import View

CEILING = 2.6
MEMBERSHIPS = 3  # objects that one point may belong to, as in the preparation of SUN RGB-D
UNIT = 2.0**-12  # metres: what points and boxes are rounded to, so that last bits of a sine do not matter


@dataclass(frozen=True)
class Sensor:
    """Pixels across and down, noise of depth (m at 1 m; grows with depth squared), share of pixels without depth."""

    width: int
    height: int
    noise: float = 0.003
    dropout: float = 0.05


def photograph(solids: Sequence[Solid], view: View, sensor: Sensor, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the points ``[n, 3]`` of a depth image in the camera's frame, and the solid each lies on (−1: none)."""
    rays = camera_rays(view.eye, view.yaw, view.pitch, sensor.width, sensor.height, view.angle)
    depth, seen = look(view.eye, rays, view.room, solids, CEILING)
    noisy = depth + sensor.noise * np.where(np.isfinite(depth), depth, 0) ** 2 * rng.standard_normal(len(depth))
    good = np.isfinite(depth) & (rng.random(len(depth)) >= sensor.dropout)
    points = view.eye + rays[good] * noisy[good, None]
    return to_camera(points, view), seen[good]


def to_camera(points: np.ndarray, view: View) -> np.ndarray:
    """Move points ``[..., 3]`` of the room into the camera's frame."""
    angle = np.pi / 2 - view.yaw
    cos, sin = np.cos(angle), np.sin(angle)
    offset = points - np.array([*view.eye[:2], 0.0])
    turned = [cos * offset[..., 0] - sin * offset[..., 1], sin * offset[..., 0] + cos * offset[..., 1], offset[..., 2]]
    return np.stack(turned, axis=-1)


def boxes_to_camera(boxes: np.ndarray, view: View) -> np.ndarray:
    """Move boxes ``[n, 7]`` of the room into the camera's frame; headings come out within ±π."""
    heading = boxes[:, 6] + np.pi / 2 - view.yaw
    wrapped = (heading + np.pi) % (2 * np.pi) - np.pi
    return np.concatenate([to_camera(boxes[:, :3], view), boxes[:, 3:6], wrapped[:, None]], axis=1)


def rounded(values: np.ndarray) -> np.ndarray:
    """Round to `UNIT`; float32 holds the result exactly."""
    return (np.round(values / UNIT) * UNIT).astype(np.float32)


def farthest_first(points: np.ndarray, count: int) -> np.ndarray:
    """Return an order of points ``[n, 3]``: the first `count` are their farthest point sample from index 0, then the
    rest as they were.

    Each prefix of those is the sample of its size, so a network that samples `count` points and then fewer of them
    needs no sampling while it trains: it takes the first ones. Turning, mirroring and scaling a room change no order.
    """
    order = np.zeros(count, np.int64)
    cloud = points.astype(np.float64)
    nearest = np.full(len(points), np.inf)
    for i in range(1, count):
        difference = cloud - cloud[order[i - 1]]
        np.minimum(nearest, np.einsum("nc,nc->n", difference, difference), out=nearest)
        order[i] = nearest.argmax()
    if len(set(order.tolist())) < count:  # fewer distinct places than asked for: index 0 came up again
        order = np.array(list(dict.fromkeys(order.tolist())))
    rest = np.ones(len(points), bool)
    rest[order] = False
    return np.concatenate([order, np.flatnonzero(rest)])
