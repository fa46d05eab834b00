"""Perceptrons for adversaries: a generator, plain or self-modulated, and a critic."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

MODULATION_HIDDEN = 32  # of the authors' code (compare_gan)


class SelfModulation(nn.Module):
    """Batch normalisation whose scale and shift are functions of the noise (Chen et al., section 2.2)."""

    def __init__(self, width: int, latent: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.hidden = nn.Linear(latent, MODULATION_HIDDEN)
        self.scale, self.shift = nn.Linear(MODULATION_HIDDEN, width), nn.Linear(MODULATION_HIDDEN, width)
        nn.init.ones_(self.scale.bias)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        hidden = self.hidden(noise).relu()
        return self.scale(hidden) * self.norm(x) + self.shift(hidden)


class PlainNorm(nn.BatchNorm1d):
    """Batch normalisation that has no use for the noise."""

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return super().forward(x)


class ImageNetwork(nn.Module):
    """Noise ``[batch, latent]`` to images ``[batch, pixels]`` in [-1, 1], through normalised hidden layers."""

    def __init__(self, latent: int, width: int, pixels: int, modulated: bool):
        super().__init__()
        sizes = [latent, width, width]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(
            SelfModulation(width, latent) if modulated else PlainNorm(width) for _ in self.layers
        )
        self.last = nn.Linear(width, pixels)

    def forward(self, noise: Tensor) -> Tensor:
        x = noise
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x), noise).relu()
        return self.last(x).tanh()


def critic(pixels: int, width: int, outputs: int, normed: bool) -> nn.Sequential:
    """Return a perceptron from images to so many numbers; `normed`: by the largest singular value of each layer."""
    keep = spectral_norm if normed else lambda layer: layer
    return nn.Sequential(
        keep(nn.Linear(pixels, width)),
        nn.LeakyReLU(0.2),
        keep(nn.Linear(width, width)),
        nn.LeakyReLU(0.2),
        keep(nn.Linear(width, outputs)),
    )
