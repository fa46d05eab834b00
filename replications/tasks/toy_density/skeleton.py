"""The smallest method of the task, which ``new paper`` copies: points that are denoised once, from one level."""

from collections.abc import Iterator

import torch
from torch import Tensor

from replications.layers.planar.denoiser import LearnedDenoiser
from replications.layers.planar.density import PlanarDensity
from replications.layers.planar.model import PointModel, Sampler

SIGMA = 2.0


class Once(PointModel):
    """Denoises pure noise in one step."""

    def levels(self, count: int) -> tuple[Tensor, float]:
        return torch.full((count,), SIGMA, device=self.density.centres.device), 1.0

    def samplers(self) -> dict[str, Sampler]:
        return {"once": Sampler(self.once, SIGMA)}

    def once(self, y: Tensor) -> Iterator[Tensor]:
        yield y
        yield self.denoiser(y, SIGMA)


def build(density: PlanarDensity, width: int, depth: int) -> Once:
    """Return the method for points of the density."""
    return Once(density, LearnedDenoiser(width, depth, "data"))
