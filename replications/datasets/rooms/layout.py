"""Where furniture stands: footprints that do not touch, backs to the walls, a camera that looks across the room."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

ATTEMPTS = 30
GAP = 0.05  # metres between pieces
NEAREST = 1.2  # metres from the camera to the middle of a piece, at least
CENTRAL = 0.85  # of the angle of view: the middle of a piece stands within it


@dataclass(frozen=True)
class View:
    """The room's half size ``[2]`` and the camera: position ``[3]``, heading and fall of its axis, horizontal angle."""

    room: np.ndarray
    eye: np.ndarray
    yaw: float
    pitch: float
    angle: float

    def shows(self, x: float, y: float) -> bool:
        """Whether a place on the floor lies well within what the camera looks at."""
        dx, dy = x - self.eye[0], y - self.eye[1]
        bearing = (np.arctan2(dy, dx) - self.yaw + np.pi) % (2 * np.pi) - np.pi
        return bool(np.hypot(dx, dy) >= NEAREST and abs(bearing) <= CENTRAL * self.angle / 2)


def draw_view(rng: Generator, angle: float) -> View:
    """Draw a room of 3.5 to 6 m a side and a camera that stands near one end and looks to the other."""
    room = rng.uniform(1.75, 3.0, 2)
    eye = np.array([rng.uniform(-0.5, 0.5) * room[0], -room[1] + rng.uniform(0.1, 0.5), rng.uniform(1.2, 1.7)])
    aim = np.array([rng.uniform(-0.4, 0.4) * room[0], rng.uniform(0.1, 0.6) * room[1]])
    yaw = float(np.arctan2(*(aim - eye[:2])[::-1]))
    return View(room, eye, yaw, float(rng.uniform(0.25, 0.5)), angle)


def place(
    size: np.ndarray, against_wall: bool, taken: list[np.ndarray], view: View, rng: Generator
) -> np.ndarray | None:
    """Return a box (7) on the floor for a piece of `size`, clear of the boxes `taken` and in
    view; None where no place was found.

    A piece that stands against a wall has its back (−x) to the left, the right or the far one.
    """
    for _ in range(ATTEMPTS):
        if against_wall:
            side = int(rng.integers(3))
            heading = (0.0, np.pi, -np.pi / 2)[side]
            reach = size[0] / 2 + rng.uniform(0.01, 0.1)
            along = rng.uniform(-1, 1)
            if side < 2:
                x, y = (reach - view.room[0]) * (1, -1)[side], along * max(view.room[1] - size[1] / 2, 0)
            else:
                x, y = along * max(view.room[0] - size[1] / 2, 0), view.room[1] - reach
        else:
            heading = rng.uniform(-np.pi, np.pi)
            x, y = rng.uniform(-1, 1, 2) * np.maximum(view.room - np.linalg.norm(size[:2]) / 2, 0)
        box = np.array([x, y, size[2] / 2, *size, heading])
        if view.shows(x, y) and not any(_touch(box, other) for other in taken):
            return box
    return None


def _touch(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two footprints are nearer than the gap: no side of either separates them."""
    offset = b[:2] - a[:2]
    axes = [(np.cos(x[6]), np.sin(x[6])) for x in (a, b)]
    for c, s in axes:
        for axis in (np.array([c, s]), np.array([-s, c])):
            reach = sum(
                x[3] / 2 * abs(axis @ (c2, s2)) + x[4] / 2 * abs(axis @ (-s2, c2))
                for x, (c2, s2) in zip((a, b), axes, strict=True)
            )
            if abs(axis @ offset) > reach + GAP:
                return False
    return True
