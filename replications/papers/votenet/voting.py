"""Votes: each seed predicts the centre of its object and a feature of it (Section 4.1)."""

import torch.nn.functional as F
from torch import Tensor, nn

from replications.layers.rooms.proposal import head


class VotingModule(nn.Module):
    """A shared network ``c, c, 3 + c``: an offset in space and a residual of the feature, one vote a seed.

    Features of votes have unit length, as in the authors' code.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.network = head(channels, (channels, channels), 3 + channels)

    def forward(self, points: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return votes ``[b, s, 3]`` and their features ``[b, s, c]`` from those of the seeds."""
        said = self.network(features)
        return points + said[..., :3], F.normalize(features + said[..., 3:], dim=-1)
