"""Score-based models in continuous time on points in the plane (Song et al., ICLR 2021)."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from replications.errors import UserError
from replications.layers.diffusion.flow import flow, flow_log_prob
from replications.layers.diffusion.sde import SDE, VarianceExploding, VariancePreserving, reverse_diffusion
from replications.layers.diffusion.states import last
from replications.layers.planar.denoiser import Denoiser, ExactDenoiser, LearnedDenoiser
from replications.layers.planar.density import PlanarDensity
from replications.layers.planar.model import PointModel, Sampler

SDES = {"preserving": VariancePreserving, "exploding": partial(VarianceExploding, 0.01, 10.0)}
FIRST_TIME = {"preserving": 1e-3, "exploding": 1e-5}  # of training and the ODE


class ScoreSDE(PointModel):
    """A denoiser of all times, and three samplers: the reverse SDE, the ODE, a predictor with a corrector.

    `steps` are those of the reverse SDE; the others take as many evaluations of the denoiser. Raises UserError for an
    unknown `sde` and for fewer than two steps.
    """

    def __init__(self, density: PlanarDensity, denoiser: Denoiser, sde: str, steps: int, ode_steps: int):
        super().__init__(density, denoiser)
        if sde not in SDES:
            raise UserError(f"sde '{sde}': give one of {', '.join(SDES)}")
        if steps < 2:
            raise UserError(f"{steps} sampling steps: give at least 2, a predictor's and a corrector's")
        self.sde: SDE = SDES[sde]()
        self.first, self.steps, self.ode_steps = FIRST_TIME[sde], steps, ode_steps

    def levels(self, count: int) -> tuple[Tensor, float]:
        """Draw times evenly; the weight noise(t)^2 of the score's error makes it the error of the noise (eq. 7)."""
        t = self.first + (1 - self.first) * torch.rand(count, device=self.density.centres.device)
        signal, noise = self.sde.marginal(t)
        return noise / signal, 1.0

    def score(self, x: Tensor, t: float) -> Tensor:
        signal, noise = (value.item() for value in self.sde.marginal(torch.tensor(t, dtype=torch.float64)))
        return (signal * self.denoiser(x / signal, noise / signal) - x) / noise**2

    def samplers(self) -> dict[str, Sampler]:
        half = self.steps // 2
        return {
            "sde": Sampler(partial(self._reverse, steps=self.steps), self.sde.prior),
            "ode": Sampler(partial(self._flow, steps=half), self.sde.prior),
            "corrected": Sampler(partial(self._reverse, steps=half, corrector_steps=1), self.sde.prior),
        }

    def _reverse(self, x: Tensor, steps: int, corrector_steps: int = 0) -> Iterator[Tensor]:
        return reverse_diffusion(self.sde, self.score, x, steps, corrector_steps)

    def _ends(self) -> tuple[float, float, float]:
        """Return the lowest and the highest sigma of y, and the signal at time 1."""
        signal, noise = self.sde.marginal(torch.tensor([self.first, 1.0], dtype=torch.float64))
        low, high = (noise / signal).tolist()
        return low, high, signal[1].item()

    def _flow(self, x: Tensor, steps: int) -> Iterator[Tensor]:
        low, high, signal = self._ends()
        return flow(self.denoiser, x / signal, high, low, steps)

    def path(self, noise: Tensor) -> Iterator[Tensor]:
        return self._flow(self.sde.prior * noise, self.ode_steps)

    def log_probs(self, x: Tensor) -> dict[str, Tensor]:
        low, high, signal = self._ends()
        return {"ode": flow_log_prob(self.denoiser, x, low, high, self.ode_steps, self.sde.prior / signal)}

    def measure(self, x: Tensor) -> dict[str, float]:
        """Measure how near the learned ODE's codes are to those of the exact one (appendix D.5)."""
        if isinstance(self.denoiser, ExactDenoiser):
            return {}
        low, high, _ = self._ends()
        codes = [last(flow(d, x, low, high, self.ode_steps)) for d in (self.denoiser, self.density.denoise)]
        return {"encoding_correlation": torch.corrcoef(torch.stack([c.double().flatten() for c in codes]))[0, 1].item()}


def build(density: PlanarDensity, ode_steps: int, width: int, depth: int, *, sde: str, sde_steps: int) -> ScoreSDE:
    """Return a learned model of the SDE ``preserving`` (VP) or ``exploding`` (VE)."""
    return ScoreSDE(density, LearnedDenoiser(width, depth), sde, sde_steps, ode_steps)


def exact(density: PlanarDensity, *, sde: str, sde_steps: int, ode_steps: int) -> ScoreSDE:
    """Return the same with the density's own score."""
    return ScoreSDE(density, ExactDenoiser(density), sde, sde_steps, ode_steps)
