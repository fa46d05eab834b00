"""The Gaussian chain of DDPM: marginals, posteriors, ancestral sampling and the bound (Ho et al., NeurIPS 2020).

Index i is the paper's t - 1. A `denoise` is called as ``denoise(x, i)`` with x_t ``[batch, ...]`` and returns the
expected x_0 of the same shape. Samplers yield the state before their first step and after each one.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from replications.errors import UserError

Denoise = Callable[[Tensor, int], Tensor]


class Chain:
    """``q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)``. All arrays are float64 ``[steps]``.

    * ``signal``, ``noise``: x_t = signal x_0 + noise eps (eq. 4).
    * ``x0_weight``, ``x_weight``, ``posterior_variance``: q(x_{t-1} | x_t, x_0), eq. 6 and 7.
    """

    def __init__(self, betas: Tensor):
        if not ((betas > 0) & (betas < 1)).all():
            raise UserError("the betas of a chain must lie between 0 and 1")
        self.betas = betas.double()
        self.alphas_bar = torch.cumprod(1 - self.betas, 0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_bar[:-1]])
        self.signal, self.noise = self.alphas_bar.sqrt(), (1 - self.alphas_bar).sqrt()
        self.posterior_variance = self.betas * (1 - before) / (1 - self.alphas_bar)
        self.x0_weight = before.sqrt() * self.betas / (1 - self.alphas_bar)
        self.x_weight = (1 - self.betas).sqrt() * (1 - before) / (1 - self.alphas_bar)

    @property
    def steps(self) -> int:
        return len(self.betas)

    def variance(self, kind: Literal["large", "small"]) -> Tensor:
        """Return the variances of p(x_{t-1} | x_t): beta_t, or the posterior's (section 3.2).

        The posterior's first is 0; that entry has the second's value (the authors' code), which only a bound needs.
        """
        variance = (self.betas if kind == "large" else self.posterior_variance).clone()
        variance[0] = self.posterior_variance[min(1, self.steps - 1)] if self.steps > 1 else self.betas[0]
        return variance

    def bound_weights(self, kind: Literal["large", "small"] = "large") -> Tensor:
        """Return the weights of |x_0 - denoised|^2 in the bound: eq. 8 with eq. 7 for the means."""
        return self.x0_weight**2 / (2 * self.variance(kind))


def ancestral(chain: Chain, denoise: Denoise, x: Tensor, kind: Literal["large", "small"] = "large") -> Iterator[Tensor]:
    """Sample by algorithm 2 from x_T = `x`: the posterior's mean at the denoised x_0, noise but in the last step."""
    deviation = chain.variance(kind).sqrt().tolist()
    weight_0, weight_t = chain.x0_weight.tolist(), chain.x_weight.tolist()
    yield x
    for i in reversed(range(chain.steps)):
        x = weight_0[i] * denoise(x, i) + weight_t[i] * x
        if i:
            x = x + deviation[i] * torch.randn_like(x)
        yield x


def bound(chain: Chain, denoise: Denoise, x0: Tensor, kind: Literal["large", "small"] = "large") -> Tensor:
    """Return the evidence lower bound of log p(x_0) in nats, ``[batch]``: minus eq. 5, one draw of each x_t.

    x_0 is continuous: p(x_0 | x_1) is a Gaussian density of the variance of `Chain.variance`.
    """
    dims, flat = x0[0].numel(), lambda x: x.double().flatten(1).square().sum(1)
    signal, noise = chain.signal, chain.noise
    variance = chain.variance(kind)
    last = noise[-1] ** 2
    total = -0.5 * (signal[-1] ** 2 * flat(x0) + dims * (last - 1 - last.log()))  # KL(q(x_T | x_0) || N(0, 1))
    for i in range(chain.steps):
        x = signal[i].item() * x0 + noise[i].item() * torch.randn_like(x0)
        missed = flat(x0 - denoise(x, i)) * chain.x0_weight[i] ** 2 / variance[i]
        if i:
            ratio = chain.posterior_variance[i] / variance[i]
            total = total - 0.5 * (missed + dims * (ratio - 1 - ratio.log()))
        else:
            total = total - 0.5 * (missed + dims * (2 * math.pi * variance[0]).log())
    return total
