"""The PointNet++ backbone: from points to seeds (VoteNet, Section 4.1 and appendix)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.points.pointnet2 import SetAbstraction
from replications.layers.points.propagation import FeaturePropagation
from replications.layers.points.sampling import farthest_point_sample


@dataclass(frozen=True)
class Seeds:
    """`points` ``[b, s, 3]``, `features` ``[b, s, c]``, `index` int64 ``[b, s]`` into the input points."""

    points: Tensor
    features: Tensor
    index: Tensor


def shrunk(levels: Sequence[Mapping[str, Any]], by: int) -> list[dict[str, Any]]:
    """Return levels with points and widths over `by` and no fewer than 8 neighbours: a thinner network, same radii."""
    return [
        {
            **level,
            "points": level["points"] // by,
            "neighbours": max(min(8, level["neighbours"]), level["neighbours"] // by),
            "widths": [width // by for width in level["widths"]],
        }
        for level in levels
    ]


class Backbone(nn.Module):
    """Four set abstractions, two feature propagations back to the points of the second: the seeds.

    The one feature of the input is the height above the floor. Interpolation weighs with 1 / distance, as the authors'
    code does (PointNet++'s own: 1 / squared distance).
    `levels` are (points, radius, neighbours, widths), finest first; `propagation` the widths of both propagations.
    Farthest point sampling starts at index 0 and is nested: the sample of a sample is its beginning. So only the first
    level samples, and where the data's first `sampled` points are such a sample already (see `datasets/rooms`), it
    takes the first ones, too.
    """

    def __init__(self, levels: Sequence[Mapping[str, Any]], propagation: Sequence[int], sampled: int = 0):
        super().__init__()
        counts = [level["points"] for level in levels]
        if len(levels) != 4 or counts != sorted(counts, reverse=True):
            raise UserError(f"the backbone has four levels with ever fewer points, not {counts}")
        self.sampled, self.counts = sampled, counts
        self.abstractions = nn.ModuleList()
        channels = 1
        for level in levels:
            layer = SetAbstraction(
                level["points"], level["radius"], level["neighbours"], channels, level["widths"], normalise_xyz=True
            )
            self.abstractions.append(layer)
            channels = layer.channels
        first = FeaturePropagation(channels + self.abstractions[2].channels, propagation, power=1)
        second = FeaturePropagation(first.channels + self.abstractions[1].channels, propagation, power=1)
        self.propagations = nn.ModuleList([first, second])
        self.channels = second.channels

    def forward(self, points: Tensor, floor: Tensor) -> Seeds:
        """Return the seeds of `points` ``[b, n, 3]`` above a floor at z `floor` ``[b]``; raises UserError for fewer
        points than the first level takes."""
        if points.shape[1] < self.counts[0]:
            raise UserError(f"the backbone samples {self.counts[0]} points of {points.shape[1]}: give it more points")
        nested = torch.arange(self.counts[0], device=points.device).expand(len(points), -1)
        first = nested if self.sampled >= self.counts[0] else farthest_point_sample(points, self.counts[0])
        where, what = [points], [points[..., 2:] - floor[:, None, None]]
        for layer, count in zip(self.abstractions, self.counts, strict=True):
            index = first if layer is self.abstractions[0] else nested[:, :count]
            centres, features, _ = layer(where[-1], what[-1], index)
            where.append(centres)
            what.append(features)
        carried = self.propagations[0](where[3], where[4], what[3], what[4])
        features = self.propagations[1](where[2], where[3], what[2], carried)
        return Seeds(where[2], features, first[:, : self.counts[1]])
