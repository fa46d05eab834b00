"""Attention and the encoder that detection transformers share, with the parameter names of the official code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention whose queries, keys and values come from different inputs.

    The parameters are those of ``torch.nn.MultiheadAttention``. Set `keep` to a list to have the weights
    ``[batch, heads, queries, keys]`` of each call appended to it (for pictures).
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        self.keep: list[Tensor] | None = None

    def forward(self, query: Tensor, key: Tensor, value: Tensor, ignored: Tensor | None = None) -> Tensor:
        """Attend from ``[batch, queries, width]`` to ``[batch, keys, width]`` but for `ignored` ``[batch, keys]``."""
        width = query.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key:
            q, k = F.linear(query, weight[: 2 * width], bias[: 2 * width]).chunk(2, dim=-1)
        else:
            q = F.linear(query, weight[:width], bias[:width])
            k = F.linear(key, weight[width : 2 * width], bias[width : 2 * width])
        v = F.linear(value, weight[2 * width :], bias[2 * width :])
        return self.out_proj(attend(q, k, v, self.heads, ignored, self.dropout if self.training else 0.0, self.keep))


def attend(
    q: Tensor, k: Tensor, v: Tensor, heads: int, ignored: Tensor | None, dropout: float, keep: list[Tensor] | None
) -> Tensor:
    """Softmax attention by heads of projected ``[batch, n, width]``; widths of q and k may differ from that of v."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    allowed = None if ignored is None else ~ignored[:, None, None, :]
    if keep is not None:
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        keep.append((scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)).softmax(-1).detach())
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
    return mixed.transpose(1, 2).flatten(2)


@contextmanager
def watched(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the attention weights of a layer that has `keep`, while the block runs."""
    layer.keep = found = []
    try:
        yield found
    finally:
        layer.keep = None


class FeedForward(nn.Module):
    """The two linear maps of a transformer layer are its own attributes in the official code; so they are here."""

    linear1: nn.Linear
    linear2: nn.Linear
    drop: nn.Dropout

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.drop(F.relu(self.linear1(x))))


class EncoderLayer(FeedForward):
    """Self-attention and feed-forward, each followed by dropout, addition and normalisation (post-norm)."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor | None, ignored: Tensor | None) -> Tensor:
        placed = x if position is None else x + position
        x = self.norm1(x + self.drop(self.self_attn(placed, placed, x, ignored)))
        return self.norm2(x + self.drop(self.feed_forward(x)))


class Encoder(nn.Module):
    """Layers one after the other; with none, the features pass unchanged. Post-norm: no normalisation at the end."""

    def __init__(self, layer: Callable[[], nn.Module], depth: int):
        super().__init__()
        self.layers = nn.ModuleList(layer() for _ in range(depth))

    def forward(self, x: Tensor, position: Tensor | None, ignored: Tensor | None) -> Tensor:
        """Encode ``[batch, positions, width]``; `position`, of that shape, is added to queries and keys."""
        for layer in self.layers:
            x = layer(x, position, ignored)
        return x


class BoxHead(nn.Module):
    """Three linear maps with ReLUs between: the box of a query, before its sigmoid.

    Always in float32: a box in bf16 would lie on a grid of 1/256 of the image.
    """

    def __init__(self, width: int, out: int = 4, depth: int = 3, hidden: int | None = None):
        super().__init__()
        hidden = hidden or width
        widths = [width, *[hidden] * (depth - 1), out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        meta = x.device.type == "meta"  # it knows no autocast
        with nullcontext() if meta else torch.autocast(x.device.type, enabled=False):
            x = x.float()
            for layer in self.layers[:-1]:
                x = F.relu(layer(x))
            return self.layers[-1](x)
