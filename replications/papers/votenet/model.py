"""VoteNet (Qi et al. 2019, "Deep Hough Voting for 3D Object Detection in Point Clouds")."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.rooms.backbone import Backbone, Seeds, shrunk
from replications.layers.rooms.coding import BoxCoding
from replications.layers.rooms.losses import Assignment, Targets, assign_by_distance, vote_loss
from replications.layers.rooms.model import Detector, Votes
from replications.layers.rooms.proposal import ProposalModule, Proposals, Sampling, ball_max_pool
from replications.papers.votenet.aggregation import NearestVote, WeightedAverage
from replications.papers.votenet.voting import VotingModule


class VoteNet(Detector):
    """Seeds vote for the centre of their object; clusters of votes become proposals."""

    def __init__(
        self, backbone: Backbone, proposal: ProposalModule, bn_momentum_floor: float, training_sampling: Sampling
    ):
        super().__init__(backbone, proposal, bn_momentum_floor)
        self.voting = VotingModule(backbone.channels)
        self.training_sampling = training_sampling

    def vote(self, seeds: Seeds) -> Votes:
        return Votes(*self.voting(seeds.points, seeds.features))

    def assign(self, proposals: Proposals, inside: Tensor, targets: Targets) -> Assignment:
        return assign_by_distance(proposals.base, targets)

    def vote_loss(self, votes: Votes, inside: Tensor, targets: Targets) -> Tensor:
        return vote_loss(votes.points, inside, targets)


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
    aggregation: str = "ball_max",
    training_sampling: Sampling = "votes",
    bn_momentum_floor: float = 0.001,
    shrink: int = 1,
) -> VoteNet:
    """`aggregation`: ``ball_max`` (the paper's), ``weighted_average`` or ``nearest``.

    `shrink` divides points, widths and proposals by a whole number, for a small budget; radii stay.
    """
    if training_sampling not in ("votes", "seeds"):
        raise UserError(f"votenet: training_sampling must be votes or seeds, not '{training_sampling}'")
    proposals, width = proposals // shrink, width // shrink
    backbone = Backbone(shrunk(levels, shrink), [channels // shrink for channels in propagation], sampled)
    widths, channels = (width,) * 3, backbone.channels
    pool: nn.Module
    if aggregation == "ball_max":
        pool = ball_max_pool(channels, proposals, cluster_radius, cluster_neighbours, widths)
    elif aggregation == "weighted_average":
        pool = WeightedAverage(channels, cluster_radius, cluster_neighbours, widths)
    elif aggregation == "nearest":
        pool = NearestVote(channels, widths)
    else:
        raise UserError(f"votenet: aggregation must be ball_max, weighted_average or nearest, not '{aggregation}'")
    proposal = ProposalModule(pool, proposals, BoxCoding(mean_sizes, heading_bins), width)
    return VoteNet(backbone, proposal, bn_momentum_floor, training_sampling)
