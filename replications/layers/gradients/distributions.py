"""Distributions whose parameter wants a gradient. They sample by a generator, which torch's own do not."""

import math

import torch
from torch import Generator, Tensor


class OneHot:
    """Independent one-hot variables by logits ``[batch, variables, K]``; a sample has the same shape."""

    def __init__(self, logits: Tensor):
        self.parameter = logits
        self.log_probabilities = logits.log_softmax(-1)

    @property
    def probabilities(self) -> Tensor:
        return self.log_probabilities.exp()

    def gumbel(self, generator: Generator | None = None) -> Tensor:
        """Return standard Gumbel noise in the shape of the logits. Uniform draws cost a third of exponential ones."""
        like = self.parameter
        uniform = torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator)
        least = torch.finfo(like.dtype).tiny
        return -(-uniform.clamp_min(least).log()).clamp_min(least).log()

    def harden(self, scores: Tensor) -> Tensor:
        """Return the one-hot of the largest score; of equal ones, the first."""
        places = torch.arange(scores.shape[-1], device=scores.device)
        return (places == scores.argmax(-1, keepdim=True)).to(scores.dtype)

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Draw by the largest of logit plus Gumbel noise; no gradient."""
        return self.harden((self.log_probabilities + self.gumbel(generator)).detach())

    def log_prob(self, y: Tensor) -> Tensor:
        """Return log q(y) ``[batch]``, the sum over the variables."""
        return (self.log_probabilities * y).sum((-2, -1))

    def kl_to_uniform(self) -> Tensor:
        """Return KL(q, uniform) ``[batch]`` in nats."""
        negative_entropy = (self.probabilities * self.log_probabilities).sum((-2, -1))
        variables, categories = self.parameter.shape[-2:]
        return negative_entropy + variables * math.log(categories)


class Gaussian:
    """Independent Gaussians of variance 1 by their means ``[batch, dimension]``."""

    def __init__(self, mean: Tensor):
        self.parameter = mean

    def rsample(self, generator: Generator | None = None) -> Tensor:
        """Draw as mean plus noise: the gradient passes through."""
        like = self.parameter
        return like + torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)

    def sample(self, generator: Generator | None = None) -> Tensor:
        return self.rsample(generator).detach()

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q(z) ``[batch]`` up to its constant."""
        return -0.5 * (z - self.parameter).square().sum(-1)
