"""What a method of the gradient estimation task must offer.

A paper's ``build(**options)`` returns an `Estimator` of the gradient of E_q[f(y)] in the parameter of q. It gives a
`surrogate`: f's value at a draw, whose derivative is the estimate. So one form serves problems with a known gradient,
where an estimate is wanted for each draw, and a network that is trained by it.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from replications.layers.gradients.distributions import Gaussian, OneHot

Function = Callable[[Tensor], Tensor]  # [batch, ...] to [batch]


class Problem(Protocol):
    """f and the family of q: ``distribution(parameter)`` gives q for parameters ``[batch, ...]``."""

    distribution: type[OneHot] | type[Gaussian]

    def f(self, y: Tensor) -> Tensor:
        """Return f ``[batch]`` of draws, hard or relaxed."""
        ...


class Estimator(nn.Module):
    """Base class. A subclass gives `surrogate`, and says what it applies to.

    `families` are the distributions that it applies to. `evaluations` is how often an estimate calls f.
    `temperature` is that of a relaxation which trades bias for variance by it, None without one; the task sets it to
    measure at others.
    """

    families: tuple[type, ...] = (OneHot,)
    evaluations: int = 1
    temperature: float | None = None

    def surrogate(self, f: Function, q: OneHot | Gaussian, generator: Generator | None = None) -> Tensor:
        """Return f ``[batch]`` at a draw from q for each row; its derivative in q's parameter is the estimate.

        Its derivative in f's own parameters is that of f at the draw. Without a generator torch's own one draws.
        """
        raise NotImplementedError

    def gradient(self, problem: Problem, parameter: Tensor, samples: int, generator: Generator) -> Tensor:
        """Return `samples` independent estimates of the gradient in the parameter ``[...]``: ``[samples, ...]``."""
        rows = parameter.detach().expand(samples, *parameter.shape).clone().requires_grad_()
        value = self.surrogate(problem.f, problem.distribution(rows), generator)
        return torch.autograd.grad(value.sum(), rows)[0]


def along(weight: Tensor, direction: Tensor) -> Tensor:
    """Return zeros with the derivative ``weight * d direction``: a term of a surrogate that leaves its value."""
    return weight.detach() * (direction - direction.detach())
