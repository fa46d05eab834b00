"""Denoisers of points: E[x_0 | y] of y = x_0 + sigma eps, exact or learned."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from replications.layers.diffusion.predictions import Prediction, denoised, target_of
from replications.layers.planar.density import PlanarDensity

FREQUENCIES = (0.25, 0.5, 1.0, 2.0)  # of the features of log(sigma)


class Denoiser(nn.Module):
    """Called as ``denoiser(y, sigma)`` with y ``[batch, 2]`` and sigma a number or ``[batch]``; returns ``[batch, 2]``.

    `passes` counts the calls.
    """

    passes: int = 0

    def forward(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        raise NotImplementedError

    def score(self, y: Tensor, sigma: float) -> Tensor:
        """Return the gradient of the log-density of y at a level of noise."""
        return (self(y, sigma) - y) / sigma**2


class ExactDenoiser(Denoiser):
    """That of a density which is known; nothing is trained."""

    def __init__(self, density: PlanarDensity):
        super().__init__()
        self.density = density

    def forward(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        self.passes += 1
        return self.density.denoise(y, sigma)


class LearnedDenoiser(Denoiser):
    """A perceptron on x = y / sqrt(1 + sigma^2) and features of log(sigma).

    In x all diffusions are variance preserving: x = signal x_0 + noise eps with signal^2 + noise^2 = 1.
    """

    def __init__(self, width: int, depth: int, prediction: Prediction = "noise"):
        super().__init__()
        self.prediction = prediction
        sizes = [2 + 1 + 2 * len(FREQUENCIES), *[width] * depth]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*layers, nn.Linear(width, 2))
        self.register_buffer("frequencies", math.pi * torch.tensor(FREQUENCIES), persistent=False)

    def output(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        """Return the prediction for x ``[batch, 2]`` at log(sigma) ``[batch, 1]`` or ``[1, 1]``."""
        self.passes += 1
        angle = log_sigma * self.frequencies
        features = torch.cat([log_sigma, angle.sin(), angle.cos()], 1)
        return self.net(torch.cat([x, features.expand(len(x), -1)], 1))

    def forward(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).reshape(-1, 1)
        signal, noise, x = _preserving(y, sigma)
        return denoised(self.prediction, self.output(x, sigma.log()), x, signal, noise)

    def errors(self, x0: Tensor, sigma: Tensor) -> Tensor:
        """Return the squared error of the prediction at noise drawn now, mean over coordinates, ``[batch]``."""
        eps, sigma = torch.randn_like(x0), sigma[:, None]
        signal, noise, x = _preserving(x0 + sigma * eps, sigma)
        target = target_of(self.prediction, x0, eps, signal, noise)
        return (self.output(x, sigma.log()) - target).square().mean(1)


def _preserving(y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return signal, noise and x of the variance-preserving form of y."""
    signal = (1 + sigma**2).rsqrt()
    return signal, sigma * signal, signal * y
