"""Sampling with fewer steps than the chain has, with and without noise (Song, Meng, Ermon: DDIM, ICLR 2021)."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from replications.layers.diffusion.chain import Chain, Denoise
from replications.layers.diffusion.schedules import spaced_steps


def implicit(
    chain: Chain, denoise: Denoise, x: Tensor, steps: int, eta: float = 0.0, larger: bool = False
) -> Iterator[Tensor]:
    """Sample from x_T = `x` by eq. 12 in so many evenly spaced steps; yields `x` and the state after each.

    `eta` 0 draws no noise, 1 draws that of the posterior (eq. 16). `larger` draws noise of the standard deviation
    ``sqrt(1 - alpha_t / alpha_s)`` (the paper's sigma-hat) beside the direction of eta 1, but none in the last step.
    """
    indices = spaced_steps(steps, chain.steps)
    yield x
    for place in reversed(range(steps)):
        i = indices[place]
        now = chain.alphas_bar[i].item()
        then = chain.alphas_bar[indices[place - 1]].item() if place else 1.0
        sigma = (1.0 if larger else eta) * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        x0 = denoise(x, i)
        eps = (x - now**0.5 * x0) / (1 - now) ** 0.5
        x = then**0.5 * x0 + max(0.0, 1 - then - sigma**2) ** 0.5 * eps
        if sigma and place:
            x = x + ((1 - now / then) ** 0.5 if larger else sigma) * torch.randn_like(x)
        yield x


def implicit_encode(chain: Chain, denoise: Denoise, x0: Tensor, steps: int) -> Iterator[Tensor]:
    """Run the sampler without noise backwards (section 4.3): the last state is the code of `x0`.

    The first state is taken for one of the lowest level of the steps; a step upwards uses the noise predicted below.
    """
    indices = spaced_steps(steps, chain.steps)
    x = chain.signal[indices[0]].item() * x0
    yield x
    for i, above in pairwise(indices):
        guess = denoise(x, i)
        eps = (x - chain.signal[i].item() * guess) / chain.noise[i].item()
        x = chain.signal[above].item() * guess + chain.noise[above].item() * eps
        yield x
