"""Edge convolution on a graph of nearest neighbours (Wang et al. 2019)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError
from replications.layers.points.neighbours import gather

SLOPE = 0.2


@torch.no_grad()
def nearest(features: Tensor, k: int) -> Tensor:
    """Return the `k` nearest points of each by their features, itself among them: int64 ``[batch, points, k]``.

    `features` ``[batch, points, channels]``; their order is not defined, and no gradient flows. Raises UserError where
    a cloud has fewer than `k` points.
    """
    features = features.float()
    count = features.shape[1]
    if not 1 <= k <= count:
        raise UserError(f"a graph of k = {k} neighbours needs clouds of at least {k} points, not {count}")
    lengths = features.square().sum(-1)
    # |b|^2 - 2 a b: the distance without |a|^2, which is the same for all candidates.
    apart = torch.baddbmm(lengths[:, None], features, features.transpose(1, 2), alpha=-2)
    return apart.topk(k, dim=-1, largest=False, sorted=False).indices


class EdgeConv(nn.Module):
    """``max_j LeakyReLU(norm(Theta (x_j - x_i) + Phi x_i))`` over the neighbours j of i (Equations 5, 7 and 8).

    Both matrices are the layer's own; a product for each point, not for each edge: Theta x_j + (Phi - Theta) x_i.
    Input ``[batch, points, channels]`` and neighbours ``[batch, points, k]``; output ``[batch, points, width]``.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.weight = nn.Linear(2 * channels, width, bias=False)  # [Theta, Phi]
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        theta, phi = self.weight.weight.chunk(2, dim=1)
        edges = gather(F.linear(x, theta), neighbours) + F.linear(x, phi - theta)[:, :, None]
        edges = self.norm(edges.flatten(0, 2)).view(edges.shape)
        return F.leaky_relu(edges.amax(2), SLOPE)  # rises, so it may follow the maximum
