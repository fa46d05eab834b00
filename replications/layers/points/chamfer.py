"""Chamfer distance between point sets (Fan et al. 2017; SO-Net, Equation 7)."""

from torch import Tensor

from replications.layers.points.neighbours import gather, knn

_EPSILON = 1e-12  # under the root, for a finite gradient; 1e-8 in SO-Net's released loss: at most 1e-4 more a point


def chamfer_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the symmetric Chamfer distance of each pair of clouds ``[batch, n, 3]``, ``[batch, m, 3]``: ``[batch]``.

    Mean distance (not squared) to the nearest neighbour, from `a` to `b` plus from `b` to `a`. The gradient flows to
    both clouds through the pairs that were found; it is 0 where both points of a pair coincide.
    """
    return _one_way(a, b) + _one_way(b, a)


def _one_way(queries: Tensor, points: Tensor) -> Tensor:
    nearest = gather(points, knn(queries, points, 1)[1][..., 0])
    return ((queries - nearest).square().sum(-1) + _EPSILON).sqrt().mean(-1)
