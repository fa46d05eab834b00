"""Two diffusions in continuous time, and sampling by their reverse (Song et al.: score SDE, ICLR 2021).

Time runs from 0 (data) to 1 (noise): x(t) = signal(t) x(0) + noise(t) eps.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from replications.errors import UserError

Score = Callable[[Tensor, float], Tensor]  # score(x, t), in the shape of x
SMALLEST_TIME = 1e-3


class VariancePreserving:
    """``dx = -1/2 beta(t) x dt + sqrt(beta(t)) dw`` with beta(t) on a line (eq. 11); x(1) is nearly N(0, 1)."""

    prior = 1.0

    def __init__(self, low: float = 0.1, high: float = 20.0):
        self.low, self.high = low, high

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return signal and noise at times `t` (eq. 29)."""
        log_signal = -0.5 * (self.low * t + 0.5 * (self.high - self.low) * t**2)
        return log_signal.exp(), (-torch.expm1(2 * log_signal)).sqrt()

    def step(self, t: float, then: float) -> tuple[float, float]:
        """Return factor f and standard deviation g of the forward step x_t = f x_then + g z (appendix E)."""
        beta = (self.low + (self.high - self.low) * t) * (t - then)
        if beta >= 1:
            raise UserError(f"a step of {t - then:.3g} is too long for beta {beta / (t - then):.3g}: give more steps")
        return math.sqrt(1 - beta), math.sqrt(beta)


class VarianceExploding:
    """``dx = sqrt(d sigma^2 / dt) dw``, sigma(t) geometric from `low` to `high` (eq. 9); x(1) nearly N(0, high^2)."""

    def __init__(self, low: float, high: float):
        if not 0 < low < high:
            raise UserError(f"noise from {low:g} to {high:g}: give two numbers above 0 that rise")
        self.low, self.high, self.prior = low, high, high

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return signal, which is 1, and noise at times `t`."""
        return torch.ones_like(t), self.low * (self.high / self.low) ** t

    def step(self, t: float, then: float) -> tuple[float, float]:
        """Return factor f and standard deviation g of the forward step x_t = f x_then + g z (appendix E)."""
        now, before = (self.low * (self.high / self.low) ** time for time in (t, then))
        return 1.0, math.sqrt(now**2 - before**2)


SDE = VariancePreserving | VarianceExploding


def reverse_diffusion(
    sde: SDE, score: Score, x: Tensor, steps: int, corrector_steps: int = 0, snr: float = 0.16
) -> Iterator[Tensor]:
    """Sample backwards from x(1) = `x` by the reverse diffusion predictor (eq. 46); yields `x` and each state.

    Before each predictor step come `corrector_steps` of Langevin dynamics at the same time, whose size follows from
    the signal-to-noise ratio `snr` (algorithms 4 and 5). The last step draws no noise.
    """
    if steps < 1:
        raise UserError(f"a sampler of {steps} steps: give at least 1")
    times = torch.linspace(1, SMALLEST_TIME, steps + 1, dtype=torch.float64).tolist()
    yield x
    for t, then in pairwise(times):
        factor, deviation = sde.step(t, then)
        for _ in range(corrector_steps):
            x = _corrected(x, score(x, t), snr, factor**2)
        x = (2 - factor) * x + deviation**2 * score(x, t)
        if then != times[-1]:
            x = x + deviation * torch.randn_like(x)
        yield x


def _corrected(x: Tensor, gradient: Tensor, snr: float, alpha: float) -> Tensor:
    noise = torch.randn_like(x)
    norms = [value.flatten(1).norm(dim=1).mean() for value in (noise, gradient)]
    size = 2 * alpha * (snr * norms[0] / norms[1]) ** 2
    return x + size * gradient + (2 * size).sqrt() * noise
