"""NCSN on points in the plane: Langevin dynamics, annealed and plain (Song and Ermon, NeurIPS 2019)."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from replications.layers.diffusion.langevin import annealed_langevin
from replications.layers.diffusion.schedules import geometric_sigmas
from replications.layers.planar.denoiser import Denoiser, ExactDenoiser, LearnedDenoiser
from replications.layers.planar.density import PlanarDensity
from replications.layers.planar.model import PointModel, Sampler

FIRST, LAST = 4.0, 0.05  # the first is above the largest distance of two points (of the densities' centres: 3)
STEP = 0.2  # the last level's step size over its variance: the authors' 2e-5 at sigma 0.01


class NCSN(PointModel):
    """A score of several levels of noise; sampled over all levels, and at the last level alone for as many steps."""

    def __init__(self, density: PlanarDensity, denoiser: Denoiser, levels: int, steps: int):
        super().__init__(density, denoiser)
        self.register_buffer("sigmas", geometric_sigmas(FIRST, LAST, levels), persistent=False)
        self.steps = steps

    def levels(self, count: int) -> tuple[Tensor, float]:
        """Draw levels evenly; the weight sigma^2 of the score's error makes it the error of the noise (eq. 5, 6)."""
        index = torch.randint(len(self.sigmas), (count,), device=self.sigmas.device)
        return self.sigmas[index].float(), 1.0

    def samplers(self) -> dict[str, Sampler]:
        return {
            "annealed": Sampler(partial(self._langevin, sigmas=self.sigmas, steps=self.steps), FIRST),
            "plain": Sampler(
                partial(self._langevin, sigmas=self.sigmas[-1:], steps=self.steps * len(self.sigmas)), FIRST
            ),
        }

    def _langevin(self, x: Tensor, sigmas: Tensor, steps: int) -> Iterator[Tensor]:
        return annealed_langevin(self.denoiser.score, x, sigmas, steps, STEP * LAST**2)

    def measure(self, x: Tensor) -> dict[str, float]:
        """Measure eq. 5 with lambda = sigma^2 against the error of the predicted noise, at the same noise."""
        missed = 0.0
        for sigma in self.sigmas.tolist():
            eps = torch.randn_like(x)
            y = x + sigma * eps
            matching = sigma**2 * (self.denoiser.score(y, sigma) + (y - x) / sigma**2).double().square().mean()
            noise = ((y - self.denoiser(y, sigma)) / sigma - eps).double().square().mean()
            missed = max(missed, ((matching - noise).abs() / noise).item())
        return {"objective_error": missed}


def build(density: PlanarDensity, width: int, depth: int, *, levels: int = 10, langevin_steps: int = 100) -> NCSN:
    """Return a learned model of so many levels, with so many Langevin steps a level."""
    return NCSN(density, LearnedDenoiser(width, depth), levels, langevin_steps)


def exact(density: PlanarDensity, *, levels: int = 10, langevin_steps: int = 100) -> NCSN:
    """Return the same with the density's own score."""
    return NCSN(density, ExactDenoiser(density), levels, langevin_steps)
