"""NADE: the conditionals of an autoregressive model share one hidden layer (Larochelle and Murray, AISTATS 2011)."""

import math

import torch
from torch import Tensor, nn

from replications.layers.density.model import Autoregressive
from replications.papers.nade.recursion import block_logits


class NADE(Autoregressive):
    """``p(x_i = 1 | x_<i) = sigmoid(b_i + V_i h_i)`` with ``h_i = sigmoid(c + W_<i x_<i)`` (eqs. 8 and 9).

    ``2 D H + D + H`` weights; all conditionals together cost O(D H), as ``a_{i+1} = a_i + W_i x_i`` (section 3).
    """

    def __init__(self, pixels: int, hidden: int):
        super().__init__(pixels)
        self.w = nn.Parameter(torch.empty(pixels, hidden).uniform_(-1, 1) / math.sqrt(pixels))
        self.v = nn.Parameter(torch.empty(pixels, hidden).uniform_(-1, 1) / math.sqrt(hidden))
        self.b, self.c = nn.Parameter(torch.zeros(pixels)), nn.Parameter(torch.zeros(hidden))

    def logits(self, image: Tensor) -> Tensor:
        """A pass is one hidden vector: each pixel has its own."""
        self.passes += self.pixels
        return block_logits(image, self.w, self.c, self.v, self.b)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """Draw pixel by pixel and carry the activation on: a sample costs what a density does."""
        activation, image = self.c.expand(count, -1), self.b.new_zeros(count, self.pixels)
        for i in range(self.pixels):
            self.passes += 1
            logit = torch.sigmoid(activation) @ self.v[i] + self.b[i]
            image[:, i] = torch.bernoulli(logit.sigmoid())
            activation = activation + image[:, i, None] * self.w[i]
        return image


def build(shape: tuple[int, int], *, nade_hidden: int) -> NADE:
    """Return a NADE of `nade_hidden` hidden units; pixels row by row."""
    return NADE(shape[0] * shape[1], nade_hidden)
