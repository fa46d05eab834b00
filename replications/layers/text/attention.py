"""Softmax attention, the reference of every comparison: fused by torch, or materialised as it was in 2020."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.errors import UserError, nearest
from replications.layers.text.blocks import (
    Mixer,
    Rotary,
    State,
    check_room,
    head_width,
    join_heads,
    split_heads,
)

IMPLEMENTATIONS = ("sdpa", "naive")


class SoftmaxAttention(Mixer):
    """Multi-head attention; `rotary` turns queries and keys by their positions.

    "sdpa" is ``scaled_dot_product_attention``, which chooses its kernel by device and type. "naive" writes the
    ``n x n`` scores and weights to memory. Both are the same function.
    """

    decodes = True

    def __init__(self, width: int, heads: int, causal: bool, implementation: str = "sdpa", rotary: bool = True):
        super().__init__()
        if implementation not in IMPLEMENTATIONS:
            raise UserError(f"unknown attention '{implementation}'{nearest(implementation, IMPLEMENTATIONS)}")
        self.heads, self.causal, self.implementation = heads, causal, implementation
        self.rotary = Rotary(head_width(width, heads)) if rotary else None
        self.into = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def _projections(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (split_heads(part, self.heads) for part in self.into(x).chunk(3, dim=-1))
        if self.rotary is not None:
            query, key = self.rotary(query, start), self.rotary(key, start)
        return query, key, value

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        query, key, value = self._projections(x)
        attend = self._naive if self.implementation == "naive" else self._fused
        return self.out(join_heads(attend(query, key, value, valid)))

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
        if valid is None or self.causal:  # padding is at the end: no real position sees it
            return F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=valid[:, None, None, :])

    def _naive(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
        return self._weights(query, key, valid) @ value

    def _weights(self, query: Tensor, key: Tensor, valid: Tensor | None = None) -> Tensor:
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if self.causal:
            n = scores.shape[-1]
            ahead = torch.ones(n, n, dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(ahead, -math.inf)
        elif valid is not None:
            scores = scores.masked_fill(~valid[:, None, None, :], -math.inf)
        return scores.softmax(dim=-1)

    def weights(self, x: Tensor) -> Tensor:
        query, key, _ = self._projections(x)
        return self._weights(query, key)

    def start(self, batch: int, capacity: int, like: Tensor) -> State:
        width = self.out.in_features // self.heads
        return {name: like.new_zeros(batch, self.heads, capacity, width) for name in ("key", "value")}

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        check_room(position, state["key"].shape[2])
        query, key, value = self._projections(x[:, None], position)
        state["key"][:, :, position] = key[:, :, 0]
        state["value"][:, :, position] = value[:, :, 0]
        seen = slice(0, position + 1)
        mixed = F.scaled_dot_product_attention(query, state["key"][:, :, seen], state["value"][:, :, seen])
        return self.out(join_heads(mixed))[:, 0]
