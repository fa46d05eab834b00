"""Schedules of noise and of sampling steps. All in float64: rounding of a long product is then far below a sample's."""

import torch
from torch import Tensor

from replications.errors import UserError


def linear_betas(steps: int, low: float = 0.1, high: float = 20.0) -> Tensor:
    """Return beta_1 .. beta_T, ``[steps]``: a line from `low` / T to `high` / T.

    At T = 1000 these are the 1e-4 to 0.02 of Ho et al. (2020); another T keeps the noise of the whole chain, as the
    continuous form of Song et al. (2021, appendix B) does. Raises UserError where a beta would reach 1.
    """
    if steps < 1:
        raise UserError(f"a chain of {steps} steps: give at least 1")
    betas = torch.linspace(low, high, steps, dtype=torch.float64) / steps
    if betas.max() >= 1:
        raise UserError(f"a chain of {steps} steps has a beta of {betas.max():.3g}: give more than {high:g} steps")
    return betas


def geometric_sigmas(first: float, last: float, levels: int) -> Tensor:
    """Return sigma_1 > ... > sigma_L in a geometric sequence, ``[levels]``; raises UserError where they do not fall."""
    if levels < 1 or not first > last > 0:
        raise UserError(f"{levels} noise levels from {first:g} to {last:g}: give at least 1, falling to above 0")
    return torch.linspace(0, 1, levels, dtype=torch.float64).mul_(torch.tensor(last / first).log()).exp_() * first


def spaced_steps(count: int, trained: int) -> list[int]:
    """Return `count` indices of a chain of `trained` steps, evenly spaced, rising, the last one ``trained - 1``.

    Raises UserError for a sampler of no steps, and of more than were trained.
    """
    if count < 1:
        raise UserError(f"a sampler of {count} steps: give at least 1")
    if count > trained:
        raise UserError(f"a sampler of {count} steps on a chain of {trained}: give at most {trained}")
    return [-(-trained * k // count) - 1 for k in range(1, count + 1)]
