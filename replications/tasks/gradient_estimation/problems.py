"""Problems whose gradient is known: one-hot variables by enumeration, Gaussians by formula. All in float64."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from replications.layers.gradients.distributions import Gaussian, OneHot
from replications.tasks.gradient_estimation.options import GradientOptions
from replications.training.determinism import generator_for


@dataclass(frozen=True)
class OneHotProblem:
    """``f(y) = |tanh(y W) - t|^2``; `parameter`: logits ``[variables, K]``; `weight`: W ``[variables K, outputs]``."""

    parameter: Tensor
    weight: Tensor
    target: Tensor
    distribution: ClassVar = OneHot

    def f(self, y: Tensor) -> Tensor:
        return ((y.flatten(-2) @ self.weight).tanh() - self.target).square().sum(-1)

    def exact(self) -> Tensor:
        """Return the gradient of the expectation, summed over all values of y: in the form of the logits."""
        logits = self.parameter.clone().requires_grad_()
        variables, categories = logits.shape
        values = torch.tensor(list(itertools.product(range(categories), repeat=variables)))
        y = F.one_hot(values, categories).to(logits.dtype)
        expectation = (OneHot(logits[None]).log_prob(y).exp() * self.f(y)).sum()
        return torch.autograd.grad(expectation, logits)[0]


@dataclass(frozen=True)
class GaussianProblem:
    """``f(z) = |z - 2|^2`` under Gaussians of variance 1 with means `parameter` ``[dimension]``."""

    parameter: Tensor
    distribution: ClassVar = Gaussian

    def f(self, z: Tensor) -> Tensor:
        return (z - 2).square().sum(-1)

    def exact(self) -> Tensor:
        return 2 * (self.parameter - 2)


Problems = Iterator[OneHotProblem | GaussianProblem]


def one_hot_problems(options: GradientOptions, seed: int) -> Problems:
    """Yield the seed's problems: logits, W and t are standard normal."""
    for number in range(options.problems):
        generator = generator_for(seed, "one-hot", number)

        def normal(*shape: int, generator=generator) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        size = options.variables * options.categories
        yield OneHotProblem(
            normal(options.variables, options.categories), normal(size, options.outputs), normal(options.outputs)
        )


def gaussian_problems(options: GradientOptions, dimension: int, seed: int) -> Problems:
    """Yield the seed's problems of a dimension: means are standard normal."""
    for number in range(options.problems):
        generator = generator_for(seed, "gaussian", dimension, number)
        yield GaussianProblem(torch.randn(dimension, dtype=torch.float64, generator=generator))
