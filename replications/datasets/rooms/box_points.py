"""Which points lie in which boxes; boxes are ``[..., 7]``: centre, size, heading about z."""

import numpy as np


def points_inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return which points ``[p, 3]`` lie in which boxes ``[n, 7]``, surface included: bool ``[p, n]``."""
    offset = points[:, None] - boxes[:, :3]
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    along = np.abs(cos * offset[..., 0] + sin * offset[..., 1]) <= boxes[:, 3] / 2
    across = np.abs(cos * offset[..., 1] - sin * offset[..., 0]) <= boxes[:, 4] / 2
    return along & across & (np.abs(offset[..., 2]) <= boxes[:, 5] / 2)


def memberships(points: np.ndarray, boxes: np.ndarray, most: int) -> np.ndarray:
    """Return for each point the first `most` boxes it lies in, int8 ``[p, most]``, −1 for no more."""
    inside = points_inside(points, boxes)
    result = np.full((len(points), most), -1, np.int8)
    place = np.cumsum(inside, axis=1) - 1
    row, column = np.nonzero(inside & (place < most))
    result[row, place[row, column]] = column
    return result
