"""FLASH: mixed chunk attention (Hua et al. 2022, Section 3).

Four heads from one ``z``. Local: ``relu(q.k / C + b)^2`` within chunks of C positions. Global: ``q_lin (sum k_lin^T
v)`` over all chunks, or, causal, over the chunks before. Both are added, gated and projected.
"""

import math

import torch
from torch import Tensor

from replications.errors import UserError, nearest
from replications.layers.text.blocks import State, exclusive_prefix, into_chunks
from replications.papers.flash.gau import GatedUnit, hide_ahead

PARTS = ("both", "local", "global")
SMALLEST_HALF = 64  # of a chunk: smaller products are not worth the calls


class MixedChunkUnit(GatedUnit):
    """FLASH, or one of its halves (`parts`).

    The causal global sum is divided by the number of positions in it; the first chunk has none and gets zero. Alone,
    it also sums within the chunk (or the last C positions would be out of sight), which is linear attention without a
    feature map. The bidirectional sum is divided by the number of real positions.
    """

    def __init__(self, width: int, key_size: int, expansion: int, causal: bool, chunk: int, parts: str):
        if parts not in PARTS:
            raise UserError(f"unknown parts '{parts}' of mixed chunk attention{nearest(parts, PARTS)}")
        products = {"local": [math.sqrt(chunk)] * 2, "global": [1.0] * 2}
        products["both"] = products["local"] + products["global"]
        super().__init__(width, key_size, expansion, products[parts])
        self.causal, self.chunk, self.parts = causal, chunk, parts
        if parts == "global":
            del self.bias

    @property
    def decodes(self) -> bool:
        return self.causal

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        gate, value, heads = self.project(x)
        if valid is not None:
            value = value * valid[:, :, None]
        n = x.shape[1]
        size = min(self.chunk, n)
        chunks = into_chunks(value, size)
        heads = [into_chunks(head, size) for head in heads]
        mixed = None
        if self.parts != "global":
            mixed = self._local(heads[0], heads[1], chunks)
        if self.parts != "local":
            if self.causal:
                far = self._global_causal(heads[-2], heads[-1], chunks)
            else:
                count = n if valid is None else valid.sum(dim=1).clamp_min(1)[:, None, None, None]
                far = heads[-2] @ (heads[-1].transpose(-1, -2) @ chunks / count).sum(dim=1, keepdim=True)
            mixed = far if mixed is None else mixed + far
        return self.out(gate * mixed.flatten(1, 2)[:, :n])

    def weights(self, x: Tensor) -> Tensor:
        _, _, heads = self.project(x)
        n = x.shape[1]
        size = min(self.chunk, n)
        chunk = torch.arange(n, device=x.device) // size
        ahead = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        weights = x.new_zeros(x.shape[0], n, n)
        if self.parts != "global":
            near = (heads[0] @ heads[1].transpose(-1, -2) / self.chunk + self.bias(n)).relu().square()
            outside = (chunk[:, None] != chunk) | (ahead & self.causal)
            weights = weights + near.masked_fill(outside, 0.0)
        if self.parts != "local":
            far = heads[-2] @ heads[-1].transpose(-1, -2)
            if not self.causal:
                weights = weights + far / n
            else:
                unseen = ahead if self.parts == "global" else chunk[:, None] <= chunk
                weights = weights + far.masked_fill(unseen, 0.0) / (~unseen).sum(dim=1).clamp_min(1)[:, None]
        return weights[:, None]

    def _local(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = query / self.chunk
        if self.causal:
            return _causal_local(query, key, value, self.bias(query.shape[-2]))
        return _squared(query, key, self.bias(query.shape[-2])) @ value

    def _global_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Exclusive prefix sum over chunks; alone, with the part of the own chunk up to each position."""
        before = exclusive_prefix(key.transpose(-1, -2) @ value)
        size = query.shape[-2]
        past = size * torch.arange(before.shape[1], device=before.device)
        if self.parts == "both":
            mean = before / past.clamp_min(1)[:, None, None]
            return query @ mean.to(query.dtype)
        within = (query @ key.transpose(-1, -2)).tril() @ value
        seen = past[:, None] + torch.arange(1, size + 1, device=before.device)
        sums = (within.to(before.dtype) + query @ before.to(query.dtype)) / seen[:, :, None]
        return sums.to(query.dtype)

    def start(self, batch: int, capacity: int, like: Tensor) -> State:
        wide = torch.promote_types(like.dtype, torch.float32)
        return {
            "key": like.new_zeros(batch, self.chunk, self.key_size),
            "far_key": like.new_zeros(batch, self.chunk, self.key_size),
            "value": like.new_zeros(batch, self.chunk, self.hidden),
            "sum": like.new_zeros(batch, self.key_size, self.hidden, dtype=wide),
        }

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        gate, value, heads = self.project(x[:, None], position)
        place = position % self.chunk
        if place == 0 and position > 0:
            state["sum"] += (state["far_key"].transpose(-1, -2) @ state["value"]).to(state["sum"].dtype)
        state["key"][:, place], state["far_key"][:, place] = heads[1][:, 0], heads[-1][:, 0]
        state["value"][:, place] = value[:, 0]
        values = state["value"][:, : place + 1]
        mixed = torch.zeros_like(value)
        if self.parts != "global":
            scores = heads[0] @ state["key"][:, : place + 1].transpose(-1, -2)
            # both positions turned by the same whole chunks: the bias depends on their distance alone
            mixed = mixed + (scores / self.chunk + self.bias(1, place)).relu().square() @ values
        if self.parts != "local":
            sums, past = heads[-2].to(state["sum"].dtype) @ state["sum"], position - place
            if self.parts == "global":
                sums = sums + heads[-2] @ state["far_key"][:, : place + 1].transpose(-1, -2) @ values
                past = position + 1
            mixed = mixed + (sums / max(past, 1)).to(mixed.dtype)
        return self.out(gate * mixed)[:, 0]


def _squared(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    """Return ``relu(q.k + b)^2``, ``[..., size, size]``."""
    return (query @ key.transpose(-1, -2) + bias).relu_().square()


def _causal_local(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Mix each chunk ``[..., size, channels]`` with the part of it before.

    The upper right quarter of a chunk's weights is nothing, so a large chunk is done as two halves and what the second
    takes from the first. `bias` depends on the distance alone: both halves have the same.
    """
    size = query.shape[-2]
    if size < 2 * SMALLEST_HALF or size % 2:
        return _squared(query, key, hide_ahead(bias)) @ value
    half = size // 2
    query, key, value = (x.unflatten(-2, (2, half)) for x in (query, key, value))
    mixed = _causal_local(query, key, value, bias[:half, :half])
    across = _squared(query.select(-3, 1), key.select(-3, 0), bias[half:, :half]) @ value.select(-3, 0)
    first, second = mixed.unbind(-3)
    return torch.cat([first, second + across], dim=-2)
