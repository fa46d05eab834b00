"""BoxNet: the baseline of VoteNet's ablation, proposals straight from the seeds (Section 5.2)."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from replications.layers.rooms.backbone import Backbone, Seeds, shrunk
from replications.layers.rooms.coding import BoxCoding
from replications.layers.rooms.losses import Assignment, Targets, assign_by_membership
from replications.layers.rooms.model import Detector, Votes
from replications.layers.rooms.proposal import ProposalModule, Proposals, ball_max_pool


class BoxNet(Detector):
    """Seeds do not move; a proposal is positive if its seed is on an object."""

    training_sampling = "seeds"

    def vote(self, seeds: Seeds) -> Votes:
        return Votes(seeds.points, seeds.features)

    def assign(self, proposals: Proposals, inside: Tensor, targets: Targets) -> Assignment:
        own = inside.gather(1, proposals.index[..., None].expand(-1, -1, inside.shape[-1]))
        return assign_by_membership(proposals.base, own, targets)


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
    shrink: int = 1,
) -> BoxNet:
    """The network of the authors' BoxNet: VoteNet without its voting module. `shrink`: see VoteNet's."""
    proposals, width = proposals // shrink, width // shrink
    backbone = Backbone(shrunk(levels, shrink), [channels // shrink for channels in propagation], sampled)
    pool = ball_max_pool(backbone.channels, proposals, cluster_radius, cluster_neighbours, (width,) * 3)
    return BoxNet(
        backbone, ProposalModule(pool, proposals, BoxCoding(mean_sizes, heading_bins), width), bn_momentum_floor
    )
