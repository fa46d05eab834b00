"""The smallest method of the task, which ``new paper`` copies: proposals from points that do not move.

Replace `vote` by what the paper does with the points, `assign` by how it tells good proposals from bad ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from replications.layers.rooms.backbone import Backbone, Seeds
from replications.layers.rooms.coding import BoxCoding
from replications.layers.rooms.losses import Assignment, Targets, assign_by_distance
from replications.layers.rooms.model import Detector, Votes
from replications.layers.rooms.proposal import ProposalModule, Proposals, ball_max_pool


class Network(Detector):
    """A proposal is positive where it is near the centre of an object."""

    def vote(self, seeds: Seeds) -> Votes:
        return Votes(seeds.points, seeds.features)

    def assign(self, proposals: Proposals, inside: Tensor, targets: Targets) -> Assignment:
        return assign_by_distance(proposals.base, targets)


def build(
    mean_sizes: Sequence[Sequence[float]],
    heading_bins: int,
    sampled: int,
    *,
    levels: Sequence[Mapping[str, Any]],
    propagation: Sequence[int],
    proposals: int = 256,
    cluster_radius: float = 0.3,
    cluster_neighbours: int = 16,
    width: int = 128,
    bn_momentum_floor: float = 0.001,
) -> Network:
    """Return the method; `mean_sizes` ``[classes, 3]`` in metres, `sampled` points of the input come first."""
    backbone = Backbone(levels, propagation, sampled)
    pool = ball_max_pool(backbone.channels, proposals, cluster_radius, cluster_neighbours, (width,) * 3)
    proposal = ProposalModule(pool, proposals, BoxCoding(mean_sizes, heading_bins), width)
    return Network(backbone, proposal, bn_momentum_floor)
