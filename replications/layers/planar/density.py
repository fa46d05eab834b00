"""Densities in the plane that are known exactly, with any Gaussian noise added: log-density, score, denoiser, samples.

All arithmetic is float64. Points are ``[batch, 2]``; `sigma` is the standard deviation of the added noise, a number or
``[batch]``.
"""

import math

import torch
from torch import Generator, Tensor, nn


class PlanarDensity(nn.Module):
    """A density with `centres` ``[modes, 2]`` of probability `weights` ``[modes]``, thickness `deviation`.

    `title` is for readers; `extent` bounds the coordinates of points within three deviations of the density.
    """

    title: str
    extent: float

    def __init__(self, centres: Tensor, weights: Tensor, deviation: float):
        super().__init__()
        self.register_buffer("centres", centres.double(), persistent=False)
        self.register_buffer("weights", weights.double(), persistent=False)
        self.deviation = deviation

    def log_prob(self, y: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Return the natural logarithm of the density of x + sigma eps, ``[batch]``."""
        raise NotImplementedError

    def score(self, y: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Return the gradient of `log_prob` with respect to `y`, ``[batch, 2]``."""
        raise NotImplementedError

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Draw points of the density, float32 ``[count, 2]``, by a CPU generator."""
        raise NotImplementedError

    def denoise(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        """Return E[x | x + sigma eps = y] by Tweedie's formula, in the type of `y`."""
        square = _column(sigma, y) ** 2
        return (y.double() + square * self.score(y, sigma)).to(y.dtype)


class Mixture(PlanarDensity):
    """Gaussians of one standard deviation."""

    def __init__(self, title: str, centres: Tensor, weights: Tensor, deviation: float):
        super().__init__(centres, weights, deviation)
        self.title, self.extent = title, float(centres.abs().max()) + 3 * deviation

    def _log_joint(self, y: Tensor, variance: Tensor) -> Tensor:
        square = (y.double()[:, None] - self.centres).square().sum(-1)
        return self.weights.log() - square / (2 * variance) - (2 * math.pi * variance).log()

    def log_prob(self, y: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        return self._log_joint(y, self.deviation**2 + _column(sigma, y) ** 2).logsumexp(1)

    def score(self, y: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        variance = self.deviation**2 + _column(sigma, y) ** 2
        return (self._log_joint(y, variance).softmax(1) @ self.centres - y.double()) / variance

    def sample(self, count: int, generator: Generator) -> Tensor:
        mode = torch.multinomial(self.weights.cpu(), count, replacement=True, generator=generator)
        noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        return (self.centres.cpu()[mode] + self.deviation * noise).float()


class Ring(PlanarDensity):
    """A circle of even density with Gaussian noise; its `centres` are those of eight equal arcs."""

    def __init__(self, title: str, radius: float, deviation: float):
        super().__init__(circle(8, radius), torch.full((8,), 1 / 8), deviation)
        self.title, self.radius, self.extent = title, radius, radius + 3 * deviation

    def log_prob(self, y: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        variance = (self.deviation**2 + _column(sigma, y) ** 2)[:, 0]
        length = y.double().norm(dim=1)
        bessel = torch.special.i0e(length * self.radius / variance).log()  # log I0 without its growth
        return bessel - (length - self.radius) ** 2 / (2 * variance) - (2 * math.pi * variance).log()

    def score(self, y: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        variance = self.deviation**2 + _column(sigma, y) ** 2
        length = y.double().norm(dim=1, keepdim=True).clamp_min(1e-12)
        place = length * self.radius / variance
        ratio = torch.special.i1e(place) / torch.special.i0e(place)
        return (self.radius * ratio / length - 1) * y.double() / variance

    def sample(self, count: int, generator: Generator) -> Tensor:
        angle = 2 * math.pi * torch.rand(count, generator=generator, dtype=torch.float64)
        noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        return (self.radius * torch.stack([angle.cos(), angle.sin()], 1) + self.deviation * noise).float()


def circle(count: int, radius: float) -> Tensor:
    """Return `count` points evenly on a circle, the first on the positive x-axis."""
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def _column(sigma: Tensor | float, y: Tensor) -> Tensor:
    """Return `sigma` as float64 ``[batch, 1]`` or ``[1, 1]``."""
    return torch.as_tensor(sigma, dtype=torch.float64, device=y.device).reshape(-1, 1)


def planar_density(name: str) -> PlanarDensity:
    """Return one of the densities by its name (`DENSITIES`)."""
    return DENSITIES[name]()


DENSITIES = {
    "eight": lambda: Mixture("eight Gaussians", circle(8, 1.5), torch.full((8,), 1 / 8), 0.15),
    "unequal": lambda: Mixture(
        "two Gaussians, 1/5 and 4/5", torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.tensor([0.2, 0.8]), 0.2
    ),
    "ring": lambda: Ring("a ring", 1.5, 0.1),
}
