"""The decoder of SO-Net's autoencoder (Section 3.4): points from one feature."""

import torch
from torch import Tensor, nn

from replications.layers.points.model import scaled
from replications.layers.points.shared_mlp import SharedMLP
from replications.papers.sonet.layers import convolution, initialise

STEPS = (1024, 512, 256, 128, 128, 128)  # channels at 2 x 2, 4 x 4, ... 64 x 64
SIXTEEN = 3  # the step to 16 x 16, the coarsest that the released loss sees


class PointDecoder(nn.Module):
    """Points from a feature: some from a fully connected branch, more from a pyramid of up-convolutions.

    The pyramid doubles its side in each step, from 1 x 1 to ``4 * 2**levels`` squared (`levels` 1 to 4; 3 is the
    released one); each pixel of its last levels is a point. `connected` points come from the other branch.
    """

    def __init__(self, channels: int, width: float, connected: int, levels: int):
        super().__init__()
        widths = [2 * connected, 3 * connected, 4 * connected, 3 * connected]
        self.connected = SharedMLP(channels, widths, last_plain=True)
        steps, points = [], []
        for own in scaled(STEPS[: levels + 2], width):
            steps.append(nn.Sequential(nn.Upsample(scale_factor=2), *convolution(channels, own)))
            points.append(nn.Sequential(*convolution(own, own, kernel=1), nn.Conv2d(own, 3, 1)))
            channels = own
        self.first = min(SIXTEEN, len(steps) - 2)
        self.steps, self.to_points = nn.ModuleList(steps), nn.ModuleList(points[self.first :])
        self._initialise()

    def _initialise(self) -> None:
        """As the released code: up-convolutions by their outputs, points all over the cube [-1, 1]."""
        initialise(self)
        for step in self.steps:
            nn.init.kaiming_normal_(step[1].weight, mode="fan_out", nonlinearity="relu")
        for last in (self.connected.layers[-1], *(points[-1] for points in self.to_points)):
            nn.init.uniform_(last.bias, -1, 1)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Return the points ``[batch, m, 3]``, and before them those of the pyramid's coarser levels, 16 x 16 first."""
        image = features[:, :, None, None]
        found = []
        for number, step in enumerate(self.steps):
            image = step(image)
            if number >= self.first:
                found.append(self.to_points[number - self.first](image).flatten(2).transpose(1, 2))
        connected = self.connected(features).unflatten(1, (3, -1)).transpose(1, 2)
        return [*found[:-1], torch.cat([connected, found[-1]], dim=1)]
