"""DDPM on points in the plane (Ho, Jain, Abbeel, NeurIPS 2020)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from replications.layers.diffusion.chain import ancestral
from replications.layers.diffusion.predictions import Prediction
from replications.layers.planar.chain import ChainModel
from replications.layers.planar.denoiser import LearnedDenoiser
from replications.layers.planar.density import PlanarDensity
from replications.layers.planar.model import Sampler


class DDPM(ChainModel):
    """Ancestral sampling with the variances beta_t: x_0 clipped, as in the authors' code, and not."""

    def samplers(self) -> dict[str, Sampler]:
        return {name: Sampler(lambda x, clip=clip: self._states(x, clip)) for name, clip in CLIPPED.items()}

    def _states(self, x: Tensor, clip: bool) -> Iterator[Tensor]:
        return ancestral(self.chain, self.denoise(clip), x)

    def measure(self, x: Tensor) -> dict[str, float]:
        """Measure the closed form of q(x_t | x_0), eq. 4, against mean and variance of the chain step by step."""
        mean, variance, missed = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 0.0
        for i, beta in enumerate(self.chain.betas):
            mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
            errors = (mean - self.chain.signal[i]).abs(), (variance - self.chain.noise[i] ** 2).abs()
            missed = max(missed, *(error.item() for error in errors))
        return {"forward_error": missed}


CLIPPED = {"clipped": True, "unclipped": False}


def build(
    density: PlanarDensity,
    timesteps: int,
    ode_steps: int,
    width: int,
    depth: int,
    *,
    prediction: Prediction = "noise",
    loss: str = "simple",
) -> DDPM:
    """Return a chain whose network predicts ``noise``, ``data`` or ``velocity``, with ``simple`` or ``bound`` loss."""
    return DDPM(density, LearnedDenoiser(width, depth, prediction), timesteps, ode_steps, loss)
