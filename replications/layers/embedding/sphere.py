"""Vectors of length 1 and their gradient (Meng et al., NeurIPS 2019, section 4)."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TINY = 1e-12


def uniform_on_sphere(count: int, dim: int) -> nn.Parameter:
    """Return vectors ``[count, dim]`` of length 1 in directions of equal probability."""
    return nn.Parameter(nn.functional.normalize(torch.randn(count, dim), dim=1))


@torch.no_grad()
def retract(weight: Tensor) -> None:
    """Bring each row back to length 1: the retraction ``R_x(z) = (x + z) / |x + z|``, once z has been added."""
    weight.div_(weight.norm(dim=1, keepdim=True).clamp_min(TINY))


def tangent(x: Tensor, gradient: Tensor, modified: bool) -> Tensor:
    """Return ``(I - x x^T) g`` for each row; `modified`: times ``1 + x^T g / |g|``, the cosine distance of x and -g.

    The distance is 0 for a vector that points where descent leads, and 2 for the opposite one.
    """
    along = (x * gradient).sum(1, keepdim=True)
    found = gradient - along * x
    if modified:
        found = found * (1 + along / gradient.norm(dim=1, keepdim=True).clamp_min(TINY))
    return found


class _OnSphere(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, modified: bool) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.modified = modified
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return tangent(*ctx.saved_tensors, gradient, ctx.modified), None


def on_sphere(weight: Tensor, modified: bool) -> Tensor:
    """Return `weight` ``[n, dim]`` unchanged; its gradient will be the one of `tangent`."""
    return _OnSphere.apply(weight, modified)
