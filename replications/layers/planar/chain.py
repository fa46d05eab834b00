"""A discrete chain on points: what DDPM and DDIM share. Index i is the paper's t - 1."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from replications.errors import UserError
from replications.layers.diffusion.chain import Chain, Denoise, bound
from replications.layers.diffusion.flow import flow, flow_log_prob
from replications.layers.diffusion.schedules import linear_betas
from replications.layers.planar.denoiser import Denoiser, LearnedDenoiser
from replications.layers.planar.density import PlanarDensity
from replications.layers.planar.model import PointModel

LOSSES = ("simple", "bound")


class ChainModel(PointModel):
    """A denoiser trained at the levels of a chain of `timesteps` with the simple loss or the bound's weights.

    `ode_steps` are those of the likelihood. Raises UserError for an unknown loss.
    """

    def __init__(
        self,
        density: PlanarDensity,
        denoiser: Denoiser,
        timesteps: int,
        ode_steps: int,
        loss: Literal["simple", "bound"] = "simple",
    ):
        super().__init__(density, denoiser)
        if loss not in LOSSES:
            raise UserError(f"loss '{loss}': give one of {', '.join(LOSSES)}")
        self.chain, self.ode_steps = Chain(linear_betas(timesteps)), ode_steps
        sigma = self.chain.noise / self.chain.signal
        weight = torch.ones_like(sigma)
        if loss == "bound" and isinstance(denoiser, LearnedDenoiser):
            # Weights of the error of x_0, as those of the error of what the network predicts; their scale is free.
            factor = {"noise": sigma**2, "data": weight, "velocity": self.chain.noise**2}[denoiser.prediction]
            weight = self.chain.bound_weights() * factor
        self.register_buffer("sigma", sigma.float(), persistent=False)
        self.register_buffer("weight", (weight / weight.mean()).float(), persistent=False)

    def levels(self, count: int) -> tuple[Tensor, Tensor]:
        index = torch.randint(self.chain.steps, (count,), device=self.sigma.device)
        return self.sigma[index], self.weight[index]

    def denoise(self, clip: bool) -> Denoise:
        """Return x_0 of x_t and its index, `clip`ped to the extent of the density or not."""
        signal, sigma = self.chain.signal.tolist(), (self.chain.noise / self.chain.signal).tolist()
        extent = self.density.extent if clip else float("inf")

        def predict(x: Tensor, i: int) -> Tensor:
            return self.denoiser(x / signal[i], sigma[i]).clamp(-extent, extent)

        return predict

    def log_probs(self, x: Tensor) -> dict[str, Tensor]:
        low, high = float(self.sigma[0]), float(self.sigma[-1])
        prior = 1 / float(self.chain.signal[-1])
        return {
            "elbo": bound(self.chain, self.denoise(False), x),
            "ode": flow_log_prob(self.denoiser, x, low, high, self.ode_steps, prior),
        }

    def path(self, noise: Tensor) -> Iterator[Tensor]:
        start = noise / float(self.chain.signal[-1])
        return flow(self.denoiser, start, float(self.sigma[-1]), float(self.sigma[0]), self.ode_steps)
