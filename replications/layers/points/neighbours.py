"""Neighbours in point sets: k nearest, ball query, and gathering by index."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from replications.errors import UserError
from replications.layers.points import checks

# Elements of a block of the query x point matrix that is held at once; the whole matrix never is.
_BLOCK = {"cpu": 2**19, "cuda": 2**26}
# Clouds from these sizes on are searched by a tree on the CPU, which costs n log n, not n^2.
_TREE_KNN, _TREE_BALL = 512, 1024
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
    if checks.on_host(points) and points.shape[1] >= _TREE_KNN:
        return _knn_trees(queries, points, k)
    return _knn_blocks(queries, points, k)


@torch.no_grad()
def ball_query(centres: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """Return the first `k` points, in the order of their indices, that lie within `radius` of each centre.

    `centres` ``[batch, centres, 3]``, `points` ``[batch, points, 3]``; result int64 ``[batch, centres, k]``. A point at
    exactly `radius` is outside, as in PointNet++'s operation. Fewer than `k` are filled up with the first one found.
    If there is none, the single nearest point fills all `k` places (the original operation leaves index 0
    there, whichever point that is).
    """
    centres, points = _checked(centres, points)
    if checks.on_host(points) and points.shape[1] >= _TREE_BALL:
        index = torch.stack([_ball_tree(c, p, radius, k) for c, p in zip(centres, points, strict=True)])
    else:
        index = _ball_blocks(centres, points, radius, k)
    if not checks.on_host(points):
        return index  # the dense form has found the nearest meanwhile
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


def blocks(queries: Tensor, points: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield (clouds, their queries, squared distances ``[clouds, queries, points]``), block by block.

    Small clouds share a block; a large one takes several.
    """
    limit = _BLOCK.get(points.device.type, _BLOCK["cuda"])
    rows = max(1, min(queries.shape[1], limit // points.shape[1]))
    clouds = max(1, limit // (rows * points.shape[1]))
    for b in range(0, len(points), clouds):
        own = slice(b, b + clouds)
        for start in range(0, queries.shape[1], rows):
            part = slice(start, start + rows)
            yield own, part, squared_distance(queries[own, part], points[own])


def _checked(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    checks.check_points(points)
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
    for clouds, rows, squared in blocks(queries, points):
        distances[clouds, rows], indices[clouds, rows] = _ordered(squared, every, k)
    return distances, indices


def _knn_trees(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`knn` by a k-d tree of each cloud. A tree orders ties as it likes and works in float64: one candidate more than
    `k` is ordered by the rule, and where the last of them could tie with the k-th the row is searched in full."""
    from scipy.spatial import cKDTree

    count = points.shape[1]
    wanted = min(count, k + 1)
    shape = (*queries.shape[:2], wanted)
    far, candidates = torch.empty(shape[:2], dtype=torch.float64), torch.empty(shape, dtype=torch.int64)
    for b, (own, cloud) in enumerate(zip(queries.numpy(), points.numpy(), strict=True)):
        tree = cKDTree(cloud, leafsize=32, balanced_tree=False, compact_nodes=False)
        distance, index = tree.query(own, wanted)
        far[b] = torch.from_numpy(distance.reshape(len(own), wanted)[:, -1])
        candidates[b] = torch.from_numpy(index.reshape(len(own), wanted))
    offset = torch.arange(len(points))[:, None, None] * count
    squared = _squared_to(queries.flatten(0, 1), points.flatten(0, 1), (candidates + offset).flatten(0, 1)).view(shape)
    distances, indices = squared[..., :k].contiguous(), candidates[..., :k].contiguous()
    # Rows whose distances rise are in order already; others tie, or round otherwise than the tree does.
    wrong = (squared[..., 1:] <= squared[..., :-1]).any(-1)
    if wrong.any():
        distances[wrong], indices[wrong] = _ordered(squared[wrong], candidates[wrong], k)
    if wanted < count:
        unsure = far.square() <= distances[..., -1].double() * (1 + _MARGIN)
        for b in unsure.any(1).nonzero().flatten().tolist():
            full = _knn_blocks(queries[b : b + 1, unsure[b]], points[b : b + 1], k)
            distances[b, unsure[b]], indices[b, unsure[b]] = full[0][0], full[1][0]
    return distances, indices


def _squared_to(queries: Tensor, points: Tensor, index: Tensor) -> Tensor:
    """Return squared distances ``[queries, k]`` to the points at `index`, rounded as `squared_distance` rounds."""
    squared = torch.zeros(index.shape)
    for axis in range(3):
        near = points[:, axis].take(index)
        squared += near.sub_(queries[:, axis, None]).square_()
    return squared


def _threshold(radius: float) -> float:
    return float(np.float32(radius) ** 2)


def _ball_blocks(centres: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """Index ``points`` (one beyond the last) marks entries where nothing was found; off the host, the nearest."""
    index = torch.empty(*centres.shape[:2], k, dtype=torch.int64, device=points.device)
    for clouds, rows, squared in blocks(centres, points):
        inside = (squared < _threshold(radius)).flatten(0, 1)
        if checks.on_host(points):
            found = _first(inside.nonzero()[:, 1], inside.sum(1), k, points.shape[1])
        else:
            nearest = squared.argmin(-1).view(-1, 1)  # of equally near ones the first
            found = _first_dense(inside, k)
            found = found.where(found < points.shape[1], nearest)
        index[clouds, rows] = found.view(squared.shape[0], -1, k)
    return index


def _first(column: Tensor, found: Tensor, k: int, nothing: int) -> Tensor:
    """Return the first `k` columns of each row, filled up with its first; `nothing` in rows without any.

    `column` are those of all rows one after the other, each row's rising; `found` ``[rows]`` says how many each has.
    """
    if not len(column):
        return torch.full((len(found), k), nothing)
    slot = torch.arange(k)
    start = found.cumsum(0) - found
    place = start[:, None] + torch.where(slot < found[:, None], slot, 0)
    return column.take(place.clamp_max(len(column) - 1)).where(found[:, None] > 0, nothing)


def _first_dense(inside: Tensor, k: int) -> Tensor:
    """The same from a dense mask ``[rows, points]``, without leaving the device."""
    rows, count = inside.shape
    column = torch.arange(count, device=inside.device, dtype=torch.int32).expand(rows, -1)
    index = column.where(inside, count).topk(min(k, count), dim=1, largest=False, sorted=True).values
    if k > count:
        index = torch.cat([index, index.new_full((rows, k - count), count)], dim=1)
    return index.where(index < count, index[:, :1]).long()


def _ball_tree(centres: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """`ball_query` of one cloud: two trees find all pairs that could be inside, the float32 rule decides."""
    from scipy.spatial import cKDTree

    trees = (cKDTree(p.numpy(), leafsize=16, balanced_tree=False, compact_nodes=False) for p in (centres, points))
    pairs = next(trees).sparse_distance_matrix(next(trees), radius * (1 + _MARGIN), output_type="ndarray")
    row, column = pairs["i"], pairs["j"]
    near = pairs["v"] > radius * (1 - _MARGIN)  # of the border: the rule itself
    if near.any():
        own, other = torch.from_numpy(row[near]), torch.from_numpy(column[near])
        outside = _squared_to(centres[own], points, other[:, None])[:, 0] >= _threshold(radius)
        keep = np.ones(len(row), bool)
        keep[near] = ~outside.numpy()
        row, column = row[keep], column[keep]
    key = row * len(points) + column
    key.sort()
    row, column = np.divmod(key, len(points))
    found = torch.from_numpy(np.bincount(row, minlength=len(centres)))
    return _first(torch.from_numpy(column), found, k, len(points))
