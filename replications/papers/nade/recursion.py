"""NADE's recursion over pixels, without a ``[batch, pixels, hidden]`` tensor: blocks of pixels, recomputed backwards.

Within a block of K pixels the activations are a matrix product with a triangle, ``[batch, K, hidden]``; between blocks
one ``[batch, hidden]`` is carried on. The gradient runs over the blocks in reverse and computes each block's hidden
units again, so memory grows with the number of blocks alone.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

BLOCK = 16


def naive_logits(image: Tensor, w: Tensor, c: Tensor, v: Tensor, b: Tensor) -> Tensor:
    """Return ``b_i + V_i sigmoid(c + sum_{j<i} W_j x_j)``, ``[batch, pixels]``, by a cumulative sum over all pixels.

    `image` is ``[batch, pixels]``, `w` and `v` ``[pixels, hidden]``, `c` ``[hidden]``, `b` ``[pixels]``.
    """
    terms = image[:, :, None] * w
    return (torch.sigmoid(c + terms.cumsum(1) - terms) * v).sum(-1) + b


def block_logits(image: Tensor, w: Tensor, c: Tensor, v: Tensor, b: Tensor) -> Tensor:
    """Return what `naive_logits` does, under autocast too in the weights' precision. No gradient flows to the image."""
    with torch.autocast(image.device.type, enabled=False):
        return _Recursion.apply(image.to(w.dtype), w, c, v) + b


def _hidden(image: Tensor, w: Tensor, start: Tensor, part: slice) -> Tensor:
    """Return a block's hidden units ``[batch, K, hidden]`` from the activation before it."""
    x = image[:, part]
    seen = x[:, None, :] * torch.ones(x.shape[1], x.shape[1], dtype=x.dtype, device=x.device).tril(-1)
    return torch.sigmoid_(torch.matmul(seen, w[part]).add_(start[:, None]))


class _Recursion(Function):
    @staticmethod
    def forward(ctx, image: Tensor, w: Tensor, c: Tensor, v: Tensor) -> Tensor:
        start, starts, logits = c.expand(len(image), -1), [], []
        for part in _blocks(image.shape[1]):
            starts.append(start)
            hidden = _hidden(image, w, start, part).transpose(0, 1)
            logits.append(torch.bmm(hidden, v[part, :, None])[:, :, 0].T)
            start = start + image[:, part] @ w[part]
        ctx.save_for_backward(image, w, v, *starts)
        return torch.cat(logits, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, w, v, *starts = ctx.saved_tensors
        with torch.autocast(image.device.type, enabled=False):
            return None, *_gradients(grad.to(w.dtype), image, w, v, starts)


def _gradients(grad: Tensor, image: Tensor, w: Tensor, v: Tensor, starts: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of `w`, `c` and `v` from that of the logits and each block's first activation."""
    grad_w, grad_v = torch.empty_like(w), torch.empty_like(v)
    later = torch.zeros_like(starts[0])  # the gradient of all activations after the block
    for part, start in reversed(list(zip(_blocks(image.shape[1]), starts, strict=True))):
        hidden, x, own = _hidden(image, w, start, part), image[:, part], grad[:, part]
        grad_v[part] = torch.bmm(own.T[:, None], hidden.transpose(0, 1))[:, 0]
        activation = torch.ops.aten.sigmoid_backward(own[:, :, None] * v[part], hidden)
        size = x.shape[1]
        pairs = (x.T @ activation.flatten(1)).view(size, size, -1)  # pixel j times activation i, over the batch
        mask = torch.ones(size, size, dtype=x.dtype, device=x.device).triu(1)
        grad_w[part] = torch.bmm(mask[:, None], pairs)[:, 0] + x.T @ later
        later = later + activation.sum(1)
    return grad_w, later.sum(0), grad_v


def _blocks(pixels: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, pixels)) for start in range(0, pixels, BLOCK)]
