"""REBAR (Tucker et al., NeurIPS 2017): REINFORCE with a relaxation of the draw as control variate."""

import torch
from torch import Generator, Tensor

from replications.errors import UserError
from replications.layers.gradients.distributions import OneHot
from replications.layers.gradients.model import Estimator, Function, along


class Rebar(Estimator):
    """``(f(b) - eta f(s(z'))) d log q(b) + eta d f(s(z)) - eta d f(s(z'))``, s the softmax at the temperature.

    z are the logits with their Gumbel noise, b their hard form, z' a second draw of z given b.
    """

    evaluations = 3

    def __init__(self, temperature: float, eta: float):
        super().__init__()
        if temperature <= 0:
            raise UserError(f"the temperature of REBAR's relaxation must be above 0, not {temperature:g}")
        self.tau, self.eta = temperature, eta

    def surrogate(self, f: Function, q: OneHot, generator: Generator | None = None) -> Tensor:
        z = q.log_probabilities + q.gumbel(generator)
        b = q.harden(z.detach())
        soft, given = ((x / self.tau).softmax(-1) for x in (z, conditional(q, b, generator)))
        value = f(b)
        (_, slope), (at_given, slope_given) = (_value_and_slope(f, x) for x in (soft, given))
        relaxed = along(slope, soft).sum((-2, -1)) - along(slope_given, given).sum((-2, -1))
        return value + along(value - self.eta * at_given, q.log_prob(b)) + self.eta * relaxed


def conditional(q: OneHot, b: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw z given that b is its hard form (appendix on categorical variables), differentiable in q's logits.

    The largest entry is Gumbel with location 0, as probabilities sum to 1; the others are cut off by it.
    """
    noise = q.gumbel(generator)
    top = (noise * b).sum(-1, keepdim=True)
    others = -torch.logaddexp(-noise - q.log_probabilities, -top)
    return torch.where(b.bool(), top, others)


def _value_and_slope(f: Function, at: Tensor) -> tuple[Tensor, Tensor]:
    at = at.detach().requires_grad_()
    value = f(at)
    return value.detach(), torch.autograd.grad(value.sum(), at)[0]


def build(*, temperature: float = 0.5, eta: float = 1.0) -> Rebar:
    return Rebar(temperature, eta)
