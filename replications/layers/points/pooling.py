"""The maximum over neighbours, with a gradient that is cheap under deterministic algorithms."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from replications.layers.points import checks


def maximum(x: Tensor, dim: int) -> Tensor:
    """Return the maximum along `dim`. Of equal values the first gets the gradient, as ``x.max(dim)`` has it.

    torch scatters that gradient. On CUDA a deterministic scatter sorts all of it, with gigabytes of temporaries for
    the groups of PointNet++; comparing places with the index of the maximum gives the same bits.
    """
    return x.max(dim)[0] if checks.on_host(x) else _Maximum.apply(x, dim)


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, dim: int) -> Tensor:
        values, index = x.max(dim)
        ctx.save_for_backward(index)
        ctx.dim, ctx.size = dim % x.dim(), x.shape[dim]
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        place = torch.arange(ctx.size, device=index.device).view(-1, *[1] * (index.dim() - ctx.dim))
        chosen = index.unsqueeze(ctx.dim) == place
        return torch.where(chosen, gradient.unsqueeze(ctx.dim), 0), None
