"""Linear attention, ``sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j)``, in the forms of Section 3.

Shapes: query and key features ``[batch, heads, n, features]``, values ``[batch, heads, n, channels]``. The causal form
has three implementations of the same function: `causal_naive` by definition, n^2; `causal_chunked` for training, by
matrix products in chunks and a prefix sum between them; `causal_step` for decoding, with a state of constant size.

A column of ones beside the values makes the denominator come out of the same products. Sums over positions are kept in
float32 or better.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from replications.tasks.language_modelling.blocks import exclusive_prefix, into_chunks

EPS = 1e-6
CHUNK = 128


def full(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every position sees all others (Eq. 6): ``O(n features channels)``. Padding has key features of zero."""
    summed = key.transpose(-1, -2) @ with_ones(value)
    return divide(query @ summed, query.dtype)


def causal_naive(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Eq. 8 and 9 by their ``n x n`` weights: the definition that the others are tested against."""
    weights = (query @ key.transpose(-1, -2)).tril()
    return (weights @ value) / (weights.sum(dim=-1, keepdim=True) + EPS)


def causal_chunked(query: Tensor, key: Tensor, value: Tensor, chunk: int = CHUNK) -> Tensor:
    """The same in ``O(n (chunk + features) channels)``, all of it batched matrix products."""
    return divide(causal_sums(query, key, with_ones(value), chunk), query.dtype)


def causal_sums(query: Tensor, key: Tensor, value: Tensor, chunk: int = CHUNK) -> Tensor:
    """Return the numerators alone, in float32 or better."""
    n = query.shape[-2]
    query, key, value = (into_chunks(x, min(chunk, n)) for x in (query, key, value))
    inside = (query @ key.transpose(-1, -2)).tril() @ value
    if query.shape[-3] > 1:
        before = exclusive_prefix(key.transpose(-1, -2) @ value)
        inside = inside.to(before.dtype) + query @ before.to(query.dtype)
    sums = inside.flatten(-3, -2)[..., :n, :]
    return sums.float() if sums.dtype in (torch.float16, torch.bfloat16) else sums


def causal_step(query: Tensor, key: Tensor, value: Tensor, state: Tensor) -> Tensor:
    """Add one position to `state` ``[batch, heads, features, channels + 1]`` in place and answer its query (Eq. 18-20).

    All without the axis of positions: ``[batch, heads, ...]``.
    """
    state += key.unsqueeze(-1) * with_ones(value).unsqueeze(-2)
    return divide((query.unsqueeze(-2).to(state.dtype) @ state).squeeze(-2), query.dtype)


def with_ones(value: Tensor) -> Tensor:
    return F.pad(value, (0, 1), value=1.0)


def divide(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """Divide the channels by the last one, the denominator."""
    if sums.dtype in (torch.float16, torch.bfloat16):
        sums = sums.float()
    return (sums[..., :-1] / (sums[..., -1:] + EPS)).to(dtype)
