"""A linear layer without some of its connections."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedLinear(nn.Linear):
    """``x -> (W * mask) x + b``. The mask, ``[outputs, inputs]``, is given with each call, or once at the start."""

    def __init__(self, inputs: int, outputs: int, mask: Tensor | None = None, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.linear(x, self.weight * (self.mask if mask is None else mask), self.bias)


def before(pixels: int) -> Tensor:
    """Return the mask of the chain rule, row by row: output i sees the inputs j < i."""
    return torch.ones(pixels, pixels).tril(-1)
