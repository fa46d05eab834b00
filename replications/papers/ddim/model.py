"""DDIM on points in the plane: one chain, trained as in DDPM, sampled in few steps (Song, Meng, Ermon, ICLR 2021)."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from replications.layers.diffusion.chain import ancestral
from replications.layers.diffusion.implicit import implicit, implicit_encode
from replications.layers.diffusion.schedules import spaced_steps
from replications.layers.diffusion.states import last
from replications.layers.planar.chain import ChainModel
from replications.layers.planar.denoiser import ExactDenoiser, LearnedDenoiser
from replications.layers.planar.density import PlanarDensity
from replications.layers.planar.model import Sampler
from replications.training.determinism import generator_for, preserved_rng, seed_everything

NOISES = {"eta0": {"eta": 0.0}, "eta1": {"eta": 1.0}, "larger": {"larger": True}}
FEW = (5, 10, 20, 50)  # steps


class DDIM(ChainModel):
    """Samples of 10 steps without noise; and of eta 0, eta 1 and the larger noise by number of steps."""

    def samplers(self) -> dict[str, Sampler]:
        found = {"eta0_10": Sampler(partial(self._states, steps=10))}
        for name, noise in NOISES.items():
            for count in (*FEW, self.chain.steps):
                if count < self.chain.steps:
                    found.setdefault(f"{name}_{count}", Sampler(partial(self._states, steps=count, **noise)))
                else:
                    found[f"{name}_all"] = Sampler(partial(self._states, steps=self.chain.steps, **noise))
        return found

    def _states(self, x: Tensor, steps: int, eta: float = 0.0, larger: bool = False) -> Iterator[Tensor]:
        return implicit(self.chain, self.denoise(False), x, steps, eta, larger)

    def measure(self, x: Tensor) -> dict[str, float]:
        """Measure what the sampler keeps of its start, and three identities of it in float64.

        * ``same_noise_<eta>_10``: samples of 10 and of all steps from the same noise (section 5.2).
        * ``reconstruction_<steps>``: test points coded and decoded (section 5.4).
        * ``posterior_error``: eta 1 at all steps is ancestral sampling with the posterior's variance.
        * ``euler_error``: eta 0 is Euler's method on ``dy / d sigma = eps`` for y = x / signal (eq. 14).
        """
        noise = torch.randn(x.shape, generator=generator_for("toy", "same noise")).to(x)
        found = {}
        for name in ("eta0", "eta1"):
            ends = [last(self._states(noise, count, **NOISES[name])) for count in (10, self.chain.steps)]
            found[f"same_noise_{name}_10"] = distance(*ends)
        for count in (10, 20):
            code = last(implicit_encode(self.chain, self.denoise(False), x, count))
            found[f"reconstruction_{count}"] = distance(last(self._states(code, count)), x)
        return found | self._identities(x.device)

    def _identities(self, device: torch.device) -> dict[str, float]:
        exact = DDIM(self.density, ExactDenoiser(self.density), self.chain.steps, 1).to(device)
        noise = torch.randn(100, 2, generator=generator_for("toy", "identities"), dtype=torch.float64).to(device)
        ends = []
        for states in (
            exact._states(noise, self.chain.steps, eta=1.0),
            ancestral(self.chain, exact.denoise(False), noise, "small"),
        ):
            with preserved_rng(device):
                seed_everything("same noise")
                ends.append(last(states))
        return {
            "posterior_error": (ends[0] - ends[1]).abs().max().item(),
            "euler_error": (last(exact._states(noise, 10)) - exact._euler(noise, 10)).abs().max().item(),
        }

    def _euler(self, x: Tensor, steps: int) -> Tensor:
        signal = self.chain.signal.tolist()
        levels = [math.sqrt(1 / bar - 1) for bar in self.chain.alphas_bar.tolist()]
        indices = spaced_steps(steps, self.chain.steps)
        y = x / signal[indices[-1]]
        for place in reversed(range(steps)):
            sigma = levels[indices[place]]
            then = levels[indices[place - 1]] if place else 0.0
            y = y + (then - sigma) * (y - self.denoiser(y, sigma)) / sigma
        return y


def distance(one: Tensor, other: Tensor) -> float:
    """Return the mean distance of points ``[n, 2]``."""
    return (one - other).double().norm(dim=1).mean().item()


def build(density: PlanarDensity, timesteps: int, ode_steps: int, width: int, depth: int) -> DDIM:
    """Return a chain whose network predicts noise."""
    return DDIM(density, LearnedDenoiser(width, depth), timesteps, ode_steps)


def exact(density: PlanarDensity, timesteps: int, ode_steps: int) -> DDIM:
    """Return a chain whose denoiser is the density's own."""
    return DDIM(density, ExactDenoiser(density), timesteps, ode_steps)
