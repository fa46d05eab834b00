"""Feature propagation of PointNet++ (Qi et al. 2017, Section 3.4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from replications.layers.points.interpolation import interpolate
from replications.layers.points.shared_mlp import SharedMLP


class FeaturePropagation(nn.Module):
    """Carry features from coarse points to fine ones: interpolation, the fine points' own features, a shared network.

    `channels_in` counts both: coarse channels + the fine points' channels. `power`: see `three_nearest`.
    """

    def __init__(self, channels_in: int, widths: Sequence[int], power: int = 2):
        super().__init__()
        self.power = power
        self.mlp = SharedMLP(channels_in, widths)
        self.channels = self.mlp.channels

    def forward(self, fine: Tensor, coarse: Tensor, fine_features: Tensor | None, coarse_features: Tensor) -> Tensor:
        """Return ``[batch, fine, channels]`` from ``[batch, coarse, c]`` at `coarse` ``[batch, coarse, 3]``."""
        carried = interpolate(fine, coarse, coarse_features, self.power)
        return self.mlp(carried if fine_features is None else torch.cat([carried, fine_features], dim=-1))
