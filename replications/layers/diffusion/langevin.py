"""Langevin dynamics, plain and annealed over levels of noise (Song and Ermon: NCSN, NeurIPS 2019)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from replications.errors import UserError

Score = Callable[[Tensor, float], Tensor]  # score(x, sigma): the gradient of log p_sigma, in the shape of x


def annealed_langevin(score: Score, x: Tensor, sigmas: Tensor, steps: int, epsilon: float) -> Iterator[Tensor]:
    """Run algorithm 1: `steps` steps of size ``epsilon sigma_i^2 / sigma_L^2`` a level; yields `x` and each state.

    One level is plain Langevin dynamics of step size `epsilon`. Raises UserError for no steps and a size of 0 or less.
    """
    if steps < 1 or not epsilon > 0:
        raise UserError(f"Langevin dynamics of {steps} steps of size {epsilon:g}: give at least 1, of a size above 0")
    last = sigmas[-1].item()
    yield x
    for sigma in sigmas.tolist():
        size = epsilon * (sigma / last) ** 2
        for _ in range(steps):
            x = x + 0.5 * size * score(x, sigma) + size**0.5 * torch.randn_like(x)
            yield x
