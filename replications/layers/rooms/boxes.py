"""Upright boxes in space: ``[..., 7]``, centre x y z, size l w h in metres, heading about z in radians.

Heading 0 puts the length l along x; it grows counter-clockwise seen from above and may be any real number. A box
without volume (a size that is zero or negative) overlaps nothing.
"""

import numpy as np

CHUNK = 200_000  # pairs that are clipped at once


def footprints(boxes: np.ndarray) -> np.ndarray:
    """Return the corners seen from above, ``[..., 4, 2]``, counter-clockwise from the one at (+l/2, +w/2)."""
    half = np.abs(boxes[..., None, 3:5]) / 2
    local = half * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    cos, sin = np.cos(boxes[..., 6, None]), np.sin(boxes[..., 6, None])
    turned = np.stack([cos * local[..., 0] - sin * local[..., 1], sin * local[..., 0] + cos * local[..., 1]], axis=-1)
    return turned + boxes[..., None, :2]


def corners(boxes: np.ndarray) -> np.ndarray:
    """Return the eight corners, ``[..., 8, 3]``: the footprint at the bottom, then at the top."""
    flat = footprints(boxes)
    bottom = boxes[..., None, 2:3] - np.abs(boxes[..., None, 5:6]) / 2
    top = boxes[..., None, 2:3] + np.abs(boxes[..., None, 5:6]) / 2
    parts = [np.concatenate([flat, np.broadcast_to(z, (*flat.shape[:-1], 1))], axis=-1) for z in (bottom, top)]
    return np.concatenate(parts, axis=-2)


def bounds(boxes: np.ndarray) -> np.ndarray:
    """Return the axis-aligned bounds ``[..., 6]``: least x y z, greatest x y z."""
    cos, sin = np.abs(np.cos(boxes[..., 6])), np.abs(np.sin(boxes[..., 6]))
    length, width, height = (np.abs(boxes[..., i]) for i in (3, 4, 5))
    half = np.stack([cos * length + sin * width, sin * length + cos * width, height], axis=-1) / 2
    return np.concatenate([boxes[..., :3] - half, boxes[..., :3] + half], axis=-1)


def aligned_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of axis-aligned bounds ``[..., 6]`` that broadcast against each other: the closed form."""
    inside = 1.0
    for axis in range(3):
        side = np.minimum(a[..., 3 + axis], b[..., 3 + axis]) - np.maximum(a[..., axis], b[..., axis])
        inside = inside * np.maximum(side, 0)
    volumes = [np.prod(x[..., 3:] - x[..., :3], axis=-1) for x in (a, b)]
    return inside / np.maximum(volumes[0] + volumes[1] - inside, np.finfo(a.dtype).tiny)


def intersection_area(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the area that footprints of `a` and `b` ``[n, 7]`` share, pair by pair: ``[n]``.

    Sutherland and Hodgman (1974) for all pairs at once: the rectangle of `a`, seen from `b`, is cut by the four sides
    of `b`. A cut of a convex polygon adds at most one corner; free places repeat the first corner, which adds no area.
    """
    cos, sin = np.cos(b[:, 6, None]), np.sin(b[:, 6, None])
    offset = footprints(a) - b[:, None, :2]
    polygon = np.stack([cos * offset[..., 0] + sin * offset[..., 1], cos * offset[..., 1] - sin * offset[..., 0]], -1)
    for axis in (0, 1):
        limit = np.abs(b[:, 3 + axis, None]) / 2
        for sign in (1, -1):
            polygon = _cut(polygon, limit - sign * polygon[..., axis])
    following = np.roll(polygon, -1, axis=1)
    cross = polygon[..., 0] * following[..., 1] - polygon[..., 1] * following[..., 0]
    return np.maximum(cross.sum(1) / 2, 0)


def _cut(polygon: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Keep the part of each convex polygon ``[n, k, 2]`` whose signed `distance` ``[n, k]`` is not negative."""
    n, k, _ = polygon.shape
    following, ahead = np.roll(polygon, -1, axis=1), np.roll(distance, -1, axis=1)
    crosses = (distance >= 0) != (ahead >= 0)
    share = distance / np.where(crosses, distance - ahead, 1)
    crossing = polygon + share[..., None] * (following - polygon)
    candidates = np.stack([polygon, crossing], axis=2).reshape(n, 2 * k, 2)
    kept = np.stack([distance >= 0, crosses], axis=2).reshape(n, 2 * k)
    order = np.argsort(~kept, axis=1, kind="stable")[:, : k + 1]
    kept = np.take_along_axis(kept, order, axis=1)
    candidates = np.take_along_axis(candidates, order[..., None], axis=1)
    return np.where(kept[..., None], candidates, candidates[:, :1] * kept[:, :1, None])


def paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of the boxes of each pair, ``[n, 7]`` and ``[n, 7]``: ``[n]``, float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.concatenate(
        [np.zeros(0), *(_paired(a[i : i + CHUNK], b[i : i + CHUNK]) for i in range(0, len(a), CHUNK))]
    )


def _paired(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, 2] - a[:, 5] / 2, b[:, 2] - b[:, 5] / 2)
    high = np.minimum(a[:, 2] + a[:, 5] / 2, b[:, 2] + b[:, 5] / 2)
    shared = intersection_area(a, b) * np.maximum(high - low, 0)
    solid = (a[:, 3:6] > 0).all(1) & (b[:, 3:6] > 0).all(1)
    volumes = a[:, 3:6].prod(1) + b[:, 3:6].prod(1)
    return np.where(solid, shared / np.where(solid, volumes - shared, 1), 0)


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU ``[s, n, m]`` of boxes `a` ``[s, n, 7]`` with boxes `b` ``[s, m, 7]`` of the same scene.

    Only pairs whose axis-aligned bounds meet are clipped. Raises ValueError where a coordinate is not finite.
    """
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("boxes must be finite")
    first, second = bounds(np.asarray(a, np.float64)), bounds(np.asarray(b, np.float64))
    meet = np.ones((len(a), a.shape[1], b.shape[1]), bool)
    for axis in range(3):
        meet &= first[:, :, None, axis] <= second[:, None, :, 3 + axis]
        meet &= second[:, None, :, axis] <= first[:, :, None, 3 + axis]
    scene, row, column = np.nonzero(meet)
    result = np.zeros(meet.shape)
    result[scene, row, column] = paired_iou(a[scene, row], b[scene, column])
    return result


def nms(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float, kept: np.ndarray) -> np.ndarray:
    """Return which boxes survive 3-D non-maximum suppression within their scene and label: bool ``[s, n]``.

    `boxes` ``[s, n, 7]``, `scores` ``[s, n]``, `labels` ``[s, n]``; `kept` ``[s, n]``: those that take part.
    From the best score on, a box takes out those of its label whose axis-aligned bounds overlap its own by more than
    `threshold` IoU, as in the authors' evaluation. Of equal scores the lower index is the better.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    sorted_bounds = np.take_along_axis(bounds(boxes).astype(np.float32), order[..., None], axis=1)
    label, alive = np.take_along_axis(labels, order, axis=1), np.take_along_axis(kept, order, axis=1)
    step = max(1, 2**22 // max(1, boxes.shape[1]) ** 2)
    for start in range(0, len(boxes), step):
        part, living = sorted_bounds[start : start + step], alive[start : start + step]
        rival = aligned_iou(part[:, :, None], part[:, None, :]) > threshold
        rival &= label[start : start + step, :, None] == label[start : start + step, None, :]
        for i in range(boxes.shape[1] - 1):
            living[:, i + 1 :] &= ~(rival[:, i, i + 1 :] & living[:, i, None])
    result = np.zeros_like(kept)
    np.put_along_axis(result, order, alive, axis=1)
    return result
