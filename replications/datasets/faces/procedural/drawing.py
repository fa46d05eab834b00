"""Exact drawing: soft masks and colours from operations that every machine rounds the same way.

Only + - * / square root, comparison, minimum, maximum, absolute value and floor are used, on float32 arrays,
one operation a call. IEEE 754 fixes the result of each to the last bit, so the pictures are equal byte for
byte on every processor. Sine, exponential, powers, sums over an axis and matrix products are not fixed and
are not used.
"""

import numpy as np


def cover(distance: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Coverage of a pixel by the inside (negative `distance`) of a shape whose edge is `width` wide."""
    return np.minimum(np.maximum(0.5 - distance / width, 0.0), 1.0)


def bump(radius2: np.ndarray) -> np.ndarray:
    """A smooth spot of a squared radius: 1 at 0, falling to exactly 0 from 1 on."""
    return np.square(np.maximum(1.0 - radius2, 0.0))


def ellipse(x: np.ndarray, y: np.ndarray, radius_x, radius_y) -> np.ndarray:
    """Distance to an axis-parallel ellipse about the origin, near enough at its edge."""
    radius = np.sqrt(np.square(x / radius_x) + np.square(y / radius_y))
    return (radius - 1.0) * np.minimum(radius_x, radius_y)


def box(x: np.ndarray, y: np.ndarray, half_x, half_y) -> np.ndarray:
    """Distance to an axis-parallel box about the origin (largest of the two axes)."""
    return np.maximum(np.abs(x) - half_x, np.abs(y) - half_y)


def triangle_wave(x: np.ndarray) -> np.ndarray:
    """A wave of period 1 between -1 and 1."""
    return np.abs(x - np.floor(x) - 0.5) * 4.0 - 1.0


def mix(a, b, weight):
    """`a` where `weight` is 0, `b` where it is 1."""
    return a + (b - a) * weight


def ramp(anchors: list[tuple[float, float, float]], position: np.ndarray) -> np.ndarray:
    """Colours [n, 3, 1, 1] at `position` [n, 1, 1] in [0, 1] on a ramp of evenly spaced RGB anchors."""
    table = np.array(anchors, np.float32)
    place = np.minimum(np.maximum(position[:, None], 0.0), 1.0) * np.float32(len(table) - 1)
    lower = np.minimum(np.floor(place), np.float32(len(table) - 2))
    index = lower[:, 0, 0, 0].astype(np.int64)
    return mix(table[index][:, :, None, None], table[index + 1][:, :, None, None], place - lower)


def rotation(half_tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of the angle whose half has this tangent: rational, hence exact."""
    square = np.square(half_tangent)
    return (1.0 - square) / (1.0 + square), 2.0 * half_tangent / (1.0 + square)


def blur(picture: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mix a picture [n, 3, h, w] with its 1-2-1 average along both axes, `weight` [n, 1, 1] in [0, 1]."""
    weight = weight[:, None] * np.float32(0.25)
    for axis in (2, 3):
        padded = np.pad(picture, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
        before, after = (np.take(padded, range(s, s + picture.shape[axis]), axis=axis) for s in (0, 2))
        picture = picture + ((before + after) - 2.0 * picture) * weight
    return picture


class Canvas:
    """Pictures being painted: `rgb` float32 [n, 3, h, w]."""

    def __init__(self, rgb: np.ndarray):
        self.rgb = np.ascontiguousarray(rgb)

    def paint(self, mask: np.ndarray, colour: np.ndarray) -> None:
        """Lay `colour` (broadcast to [n, 3, h, w]) over the pictures as far as `mask` [n, h, w] in [0, 1]."""
        self.rgb += (colour - self.rgb) * mask[:, None]

    def shade(self, factor: np.ndarray) -> None:
        """Multiply the pictures by `factor` [n, h, w]."""
        self.rgb *= factor[:, None]
