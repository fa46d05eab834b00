"""From votes (or seeds) to proposals: choose clusters, pool what is in them, predict a box (VoteNet, Section 4.2)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.points.pointnet2 import SetAbstraction
from replications.layers.points.sampling import farthest_point_sample
from replications.layers.rooms.coding import BoxCoding, Outputs

Sampling = Literal["votes", "seeds"]


@dataclass(frozen=True)
class Proposals:
    """`outputs` of the head, the middle of each cluster `base` ``[b, p, 3]``, and the seed `index` it grew around."""

    outputs: Outputs
    base: Tensor
    index: Tensor


def head(channels: int, widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear, batch norm, ReLU on ``[..., channels]`` for each width, then a linear layer. Every layer has a bias."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(channels, width), _Norm(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Linear(channels, outputs))


class _Norm(nn.BatchNorm1d):
    """Batch norm over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view_as(x)


class ProposalModule(nn.Module):
    """Sample clusters, aggregate each, and let the head say its box.

    `aggregate(points, features, index)` gives centres, features and indices of the clusters, as a `SetAbstraction`
    does; its `channels` is the width. Sampling by ``votes`` is farthest point sampling among the votes, by ``seeds``
    among the seeds, whose first ones are such a sample.
    """

    def __init__(self, aggregate: nn.Module, proposals: int, coding: BoxCoding, width: int):
        super().__init__()
        self.aggregate, self.count, self.coding = aggregate, proposals, coding
        self.head = head(aggregate.channels, (width, width), coding.channels)

    def forward(
        self, points: Tensor, features: Tensor, sampling: Sampling = "votes", count: int | None = None
    ) -> Proposals:
        count = count or self.count
        if count > points.shape[1]:
            raise UserError(f"cannot make {count} proposals of {points.shape[1]} seeds: ask for fewer")
        if sampling == "votes":
            index = farthest_point_sample(points, count)
        else:
            index = torch.arange(count, device=points.device).expand(len(points), -1)
        base, pooled, _ = self.aggregate(points, features, index)
        return Proposals(self.coding.split(self.head(pooled), base), base, index)


def ball_max_pool(
    channels: int, proposals: int, radius: float, neighbours: int, widths: tuple[int, ...]
) -> SetAbstraction:
    """A shared network on the votes within `radius` of a cluster's middle, then the maximum: the paper's own."""
    return SetAbstraction(proposals, radius, neighbours, channels, widths, normalise_xyz=True)
