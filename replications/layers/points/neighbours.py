"""Neighbours in point sets: k nearest, ball query, and gathering by index."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from replications.errors import UserError
from replications.layers.points.checks import check_points

# Elements of a block of the query x point matrix that is held at once; the whole matrix never is.
_BLOCK = {"cpu": 2**19, "cuda": 2**26}
# Clouds from these sizes on are searched by a tree on the CPU, which costs n log n, not n^2.
_TREE_KNN, _TREE_BALL = 256, 4096
# Distances of a tree (float64) and of the rule (float32) agree to much better than this.
_MARGIN = 1e-5


@torch.no_grad()
def knn(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return squared distances and indices of the `k` points nearest to each query, nearest first.

    `queries` ``[batch, queries, 3]``, `points` ``[batch, points, 3]``; results ``[batch, queries, k]`` of float32 and
    int64. Of equally near points the one with the lower index comes first, so the result does not depend on the
    device or the algorithm. No gradient flows: gather the points and subtract where one is needed. Raises UserError
    where a cloud has fewer than `k` points.
    """
    queries, points = _checked(queries, points)
    if not 1 <= k <= points.shape[1]:
        raise UserError(f"cannot find {k} neighbours among {points.shape[1]} points: ask for 1 to {points.shape[1]}")
    if points.device.type == "cpu" and points.shape[1] >= _TREE_KNN:
        found = [_knn_tree(q, p, k) for q, p in zip(queries, points, strict=True)]
        return torch.stack([d for d, _ in found]), torch.stack([i for _, i in found])
    return _knn_blocks(queries, points, k)


@torch.no_grad()
def ball_query(centres: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """Return the first `k` points, in the order of their indices, that lie within `radius` of each centre.

    `centres` ``[batch, centres, 3]``, `points` ``[batch, points, 3]``; result int64 ``[batch, centres, k]``. A point at
    exactly `radius` is outside, as in PointNet++'s operation. Fewer than `k` are filled up with the first one found.
    Where none lies within, the single nearest point stands in all `k` places (the original operation leaves index 0
    there, whichever point that is).
    """
    centres, points = _checked(centres, points)
    if points.device.type == "cpu" and points.shape[1] >= _TREE_BALL:
        index = torch.stack([_ball_tree(c, p, radius, k) for c, p in zip(centres, points, strict=True)])
    else:
        index = _ball_blocks(centres, points, radius, k)
    empty = index[..., 0] == points.shape[1]
    if empty.any():
        for b in empty.any(1).nonzero().flatten().tolist():
            nearest = knn(centres[b : b + 1, empty[b]], points[b : b + 1], 1)[1]
            index[b, empty[b]] = nearest[0].expand(-1, k)
    return index


def gather(features: Tensor, index: Tensor) -> Tensor:
    """Return the rows of `features` ``[batch, points, c]`` at `index` ``[batch, ...]``: ``[batch, ..., c]``."""
    batch, points, channels = features.shape
    offset = torch.arange(batch, device=index.device).view(-1, *[1] * (index.dim() - 1)) * points
    rows = features.reshape(batch * points, channels).index_select(0, (index + offset).flatten())
    return rows.view(*index.shape, channels)


def squared_distance(queries: Tensor, points: Tensor) -> Tensor:
    """Return ``[..., queries, points]`` squared distances as sums of squared differences: never below 0."""
    squared = (queries[..., :, None, 0] - points[..., None, :, 0]).square_()
    for axis in (1, 2):
        squared += (queries[..., :, None, axis] - points[..., None, :, axis]).square_()
    return squared


def blocks(queries: Tensor, points: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """Yield (cloud, slice of its queries, their squared distances to its points), block by block."""
    limit = _BLOCK.get(points.device.type, _BLOCK["cuda"])
    step = max(1, limit // points.shape[1])
    for b in range(len(points)):
        for start in range(0, queries.shape[1], step):
            rows = slice(start, min(start + step, queries.shape[1]))
            yield b, rows, squared_distance(queries[b, rows], points[b])


def _checked(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    check_points(points)
    if queries.dim() != 3 or queries.shape[-1] != 3 or len(queries) != len(points):
        raise UserError(f"queries must be [{len(points)}, queries, 3], not {list(queries.shape)}")
    return queries.detach().float(), points.detach().float()


def _ordered(squared: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the `k` smallest of each row of candidates, ordered by (distance, index).

    The bits of a float32 that is not negative order as integers do: distance and index make one int64 key, all keys
    differ, and the order is the same wherever it is computed.
    """
    key = (squared.contiguous().view(torch.int32).to(torch.int64) << 32) | index
    key = key.topk(k, dim=-1, largest=False, sorted=True).values
    return (key >> 32).to(torch.int32).view(torch.float32), key & 0xFFFFFFFF


def _knn_blocks(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (*queries.shape[:2], k)
    distances = torch.empty(shape, device=points.device)
    indices = torch.empty(shape, dtype=torch.int64, device=points.device)
    every = torch.arange(points.shape[1], device=points.device)
    for b, rows, squared in blocks(queries, points):
        distances[b, rows], indices[b, rows] = _ordered(squared, every, k)
    return distances, indices


def _knn_tree(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`knn` of one cloud by a k-d tree. A tree orders ties as it likes and works in float64: a few more candidates than
    `k` are ordered by the rule, and where the last of them could tie with the k-th the row is searched in full."""
    from scipy.spatial import cKDTree

    count = len(points)
    wanted = min(count, k + 4)
    tree = cKDTree(points.numpy(), balanced_tree=False, compact_nodes=False)
    far, candidates = tree.query(queries.numpy(), wanted)
    far = torch.from_numpy(far.reshape(-1, wanted)[:, -1])
    candidates = torch.from_numpy(candidates.reshape(-1, wanted).astype(np.int64))
    picked = points[candidates]
    squared = (queries[:, None, 0] - picked[..., 0]).square_()
    for axis in (1, 2):
        squared += (queries[:, None, axis] - picked[..., axis]).square_()
    distances, indices = _ordered(squared, candidates, k)
    if wanted < count:
        unsure = (far.square() <= distances[:, -1].double() * (1 + _MARGIN)).nonzero().flatten()
        if len(unsure):
            full = _knn_blocks(queries[None, unsure], points[None], k)
            distances[unsure], indices[unsure] = full[0][0], full[1][0]
    return distances, indices


def _threshold(radius: float) -> float:
    return float(np.float32(radius) ** 2)


def _ball_blocks(centres: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """Index ``points`` (one beyond the last) stands where nothing was found."""
    index = torch.empty(*centres.shape[:2], k, dtype=torch.int64, device=points.device)
    for b, rows, squared in blocks(centres, points):
        inside = squared < _threshold(radius)
        if points.device.type == "cpu":
            row, column = inside.nonzero(as_tuple=True)
            index[b, rows] = _first(row, column, len(inside), k, points.shape[1])
        else:
            index[b, rows] = _first_dense(inside, k)
    return index


def _first(row: Tensor, column: Tensor, rows: int, k: int, nothing: int) -> Tensor:
    """Return the first `k` columns of each row; `row` and `column` are sorted. Filled up with a row's first."""
    found = torch.bincount(row, minlength=rows)
    start = found.cumsum(0) - found
    place = torch.arange(len(row)) - start[row]
    first = torch.full((rows,), nothing)
    first[found > 0] = column[start[found > 0]]
    index = first[:, None].repeat(1, k)
    kept = place < k
    index[row[kept], place[kept]] = column[kept]
    return index


def _first_dense(inside: Tensor, k: int) -> Tensor:
    """The same from a dense mask ``[rows, points]``, without leaving the device."""
    rows, count = inside.shape
    column = torch.arange(count, device=inside.device).expand(rows, -1)
    index = column.where(inside, count).topk(min(k, count), dim=1, largest=False, sorted=True).values
    if k > count:
        index = torch.cat([index, index.new_full((rows, k - count), count)], dim=1)
    return index.where(index < count, index[:, :1])


def _ball_tree(centres: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """`ball_query` of one cloud: a tree finds all that could be inside, the float32 rule decides."""
    from sklearn.neighbors import KDTree

    tree = KDTree(points.numpy())
    found = tree.query_radius(centres.numpy(), radius * (1 + _MARGIN))
    lengths = np.fromiter(map(len, found), np.int64, len(found))
    flat = np.concatenate(found) if lengths.any() else np.empty(0, np.int64)
    key = np.repeat(np.arange(len(found)), lengths) * len(points) + flat
    key.sort()
    row, column = (torch.from_numpy(part) for part in np.divmod(key, len(points)))
    difference = centres[row] - points[column]
    squared = difference[:, 0].square()
    for axis in (1, 2):
        squared += difference[:, axis].square()
    inside = squared < _threshold(radius)
    return _first(row[inside], column[inside], len(found), k, len(points))
