"""Other ways to make one feature of a cluster of votes (Table 4): no learned pooling, the same network afterwards."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from replications.layers.points.neighbours import ball_query, gather
from replications.layers.points.shared_mlp import SharedMLP


class WeightedAverage(nn.Module):
    """The mean of the votes' features within `radius` of the cluster's middle, weighted by a Gaussian of distance.

    The Gaussian's standard deviation is half of the radius. A ball with fewer votes than `neighbours` counts each once.
    """

    def __init__(self, channels: int, radius: float, neighbours: int, widths: Sequence[int]):
        super().__init__()
        self.radius, self.neighbours = radius, neighbours
        self.network = SharedMLP(channels, widths)
        self.channels = self.network.channels

    def forward(self, points: Tensor, features: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centres = gather(points, index)
        group = ball_query(centres, points, self.radius, self.neighbours)
        squared = (gather(points, group) - centres[:, :, None]).square().sum(-1)
        weight = torch.exp(-squared / (2 * (self.radius / 2) ** 2)) * _first_times(group)
        weight = weight / weight.sum(-1, keepdim=True)
        return centres, self.network((gather(features, group) * weight[..., None]).sum(2)), index


class NearestVote(nn.Module):
    """The feature of the one vote that the cluster grew around: nothing is gathered."""

    def __init__(self, channels: int, widths: Sequence[int]):
        super().__init__()
        self.network = SharedMLP(channels, widths)
        self.channels = self.network.channels

    def forward(self, points: Tensor, features: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return gather(points, index), self.network(gather(features, index)), index


def _first_times(group: Tensor) -> Tensor:
    """1.0 where a group ``[..., k]`` names a vote for the first time, 0 where a place is filled up with its first."""
    filled = group == group[..., :1]
    filled[..., 0] = False
    return (~filled).float()
