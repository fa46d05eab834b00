"""Density of points: the kernel estimate of the paper, and the one of the released TensorFlow code.

The released one is nearly constant: it treats its bandwidth as a variance, so that every kernel value in a ball lies
near 1, and divides by the number of points in the ball, which takes out what is left of the density.
"""

import math

import torch
from torch import Tensor

from replications.layers.points.neighbours import ball_query, gather, squared_distance

BALL_POINTS = 128
_BLOCK = 2**22  # elements of the point x point matrix that are held at once


@torch.no_grad()
def kernel_density(points: Tensor, bandwidth: float) -> Tensor:
    """Return ``[batch, points]``: the mean over all points of a Gaussian with standard deviation `bandwidth`.

    The factor 1 / (2.5 bandwidth) is that of the public PyTorch code; it cancels in the inverse density's scale.
    """
    step = max(1, _BLOCK // (len(points) * points.shape[1]))
    parts = [
        torch.exp(squared_distance(rows, points) / (-2 * bandwidth**2)).mean(-1) for rows in points.split(step, dim=1)
    ]
    return torch.cat(parts, dim=1) / (2.5 * bandwidth)


@torch.no_grad()
def released_density(points: Tensor, radius: float, variance: float) -> Tensor:
    """Return ``[batch, points]``: the estimate of the released TensorFlow code.

    The mean (not the sum) over the first 128 points in a ball of a Gaussian whose *variance* is the bandwidth.
    """
    k = min(BALL_POINTS, points.shape[1])
    ball = ball_query(points, points, radius, k)
    squared = (gather(points, ball) - points[:, :, None]).square().sum(-1)
    # A ball with fewer points is filled up with its first one: that repetition must not count.
    real = (ball != ball[..., :1]) | (torch.arange(k, device=ball.device) == 0)
    kernel = torch.exp(-squared / (2 * variance)) / (2.5 * math.sqrt(variance)) * real
    return kernel.sum(-1) / real.sum(-1)


def inverse_scale(density: Tensor) -> Tensor:
    """Return the inverse density over its largest value in each group; `density` is ``[batch, groups, k]``."""
    inverse = 1 / density
    return inverse / inverse.amax(-1, keepdim=True)
