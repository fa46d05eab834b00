"""Inverse-distance interpolation from three neighbours (PointNet++, Section 3.4, Equation 2)."""

from torch import Tensor

from replications.layers.points.neighbours import gather, knn

_EPSILON = 1e-8


def three_nearest(fine: Tensor, coarse: Tensor, power: int = 2) -> tuple[Tensor, Tensor]:
    """Return weights and indices of the three coarse points nearest to each fine one, both ``[batch, fine, 3]``.

    A weight is 1 / distance ** `power` (p in the paper, which takes 2), normalised over the three; a coarse point at
    the very place gets all of it. Where there are fewer than three coarse points, all of them are used.
    """
    squared, index = knn(fine, coarse, min(3, coarse.shape[1]))
    inverse = 1 / (squared.pow(power / 2) + _EPSILON)
    return inverse / inverse.sum(-1, keepdim=True), index


def interpolate(fine: Tensor, coarse: Tensor, features: Tensor, power: int = 2) -> Tensor:
    """Return `features` ``[batch, coarse, channels]`` carried to the fine points: ``[batch, fine, channels]``."""
    weights, index = three_nearest(fine, coarse, power)
    return (gather(features, index) * weights[..., None].to(features.dtype)).sum(2)
