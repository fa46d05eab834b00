"""The probability-flow ODE: deterministic samples, codes and exact likelihoods (Song et al.: score SDE, ICLR 2021).

A diffusion x = signal x_0 + noise eps is taken in the coordinates y = x / signal = x_0 + sigma eps, in which the ODE of
all of them is ``dy / d log(sigma) = y - E[x_0 | y]``. A `denoise` is called as ``denoise(y, sigma)``.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from replications.errors import UserError
from replications.layers.diffusion.states import last

Denoise = Callable[[Tensor, float], Tensor]


def flow(denoise: Denoise, y: Tensor, start: float, stop: float, steps: int) -> Iterator[Tensor]:
    """Integrate from noise level `start` to `stop`: downwards gives samples, upwards codes.

    Heun's method, two evaluations a step; yields `y` and the state after each step.
    """
    yield from _heun(lambda y, u: y - denoise(y, math.exp(u)), y, start, stop, steps)


def flow_log_prob(
    denoise: Denoise, x: Tensor, low: float, high: float, steps: int, prior: float, probes: int = 0
) -> Tensor:
    """Return log p(x) in nats, ``[batch]``, by the change of variables along the ODE (eq. 39).

    `prior` is the standard deviation of y at level `high`. The divergence is exact, a backward pass for each number
    of x; with `probes` > 0 it is estimated by so many random signs (eq. 40).
    """
    dims = x[0].numel()

    def field(state: Tensor, u: float) -> Tensor:
        with torch.enable_grad():
            y = state[:, :dims].reshape(x.shape).detach().requires_grad_()
            speed = y - denoise(y, math.exp(u))
        return torch.cat([speed.detach().flatten(1), divergence(speed, y, probes)[:, None]], 1)

    state = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1)
    code = last(_heun(field, state, low, high, steps)).double()
    log_prior = -0.5 * (code[:, :dims].square().sum(1) / prior**2 + dims * math.log(2 * math.pi * prior**2))
    return log_prior + code[:, dims]


def divergence(output: Tensor, y: Tensor, probes: int = 0) -> Tensor:
    """Return the trace of d output / d y, ``[batch]``: exact, or the mean over random signs (Hutchinson)."""
    flat = output.flatten(1)
    total = y.new_zeros(len(y))
    for place in range(probes or flat.shape[1]):
        if probes:
            direction = torch.randint_like(flat, 2) * 2 - 1
        else:
            direction = torch.zeros_like(flat)
            direction[:, place] = 1
        (gradient,) = torch.autograd.grad(flat, y, direction, retain_graph=True)
        total = total + (gradient.flatten(1) * direction).sum(1)
    return total / (probes or 1)


def _heun(
    field: Callable[[Tensor, float], Tensor], state: Tensor, start: float, stop: float, steps: int
) -> Iterator[Tensor]:
    """Integrate over u = log(sigma) in equal steps; raises UserError for no steps."""
    if steps < 1:
        raise UserError(f"an ODE of {steps} steps: give at least 1")
    first, size = math.log(start), math.log(stop / start) / steps
    yield state
    for step in range(steps):
        u = first + step * size
        slope = field(state, u)
        state = state + 0.5 * size * (slope + field(state + size * slope, u + size))
        yield state
