"""The fully visible sigmoid belief network (Frey, Hinton and Dayan 1996): each pixel is a logistic regression on those
before it. And what it must beat: pixels that know nothing of each other.
"""

import torch
from torch import Tensor

from replications.layers.density.masked import MaskedLinear, before
from replications.layers.density.model import Autoregressive, Density, log_bernoulli


class FVSBN(Autoregressive):
    """``p(x_i = 1 | x_<i) = sigmoid(b_i + sum_{j<i} W_ij x_j)``."""

    def __init__(self, pixels: int):
        super().__init__(pixels)
        self.linear = MaskedLinear(pixels, pixels, before(pixels))

    def logits(self, image: Tensor) -> Tensor:
        self.passes += 1
        return self.linear(image)


class Independent(Density):
    """``p(x) = prod_i p(x_i)``, with Laplace's estimate of each pixel's probability: (ones + 1) / (images + 2)."""

    def __init__(self, pixels: int):
        super().__init__()
        self.register_buffer("pixel_logit", torch.zeros(pixels))

    def fit(self, image: Tensor) -> None:
        self.pixel_logit.copy_(((image.sum(0) + 1) / (len(image) + 2)).logit())

    def log_prob(self, image: Tensor) -> Tensor:
        self.passes += 1
        return log_bernoulli(self.pixel_logit, image)

    def sample(self, count: int) -> Tensor:
        self.passes += 1
        return torch.bernoulli(self.pixel_logit.sigmoid().expand(count, -1))


def build(shape: tuple[int, int]) -> FVSBN:
    """Return the network for images of so many rows and columns: pixels row by row."""
    return FVSBN(shape[0] * shape[1])


def build_independent(shape: tuple[int, int]) -> Independent:
    """Return independent pixels; there is nothing to train."""
    return Independent(shape[0] * shape[1])
