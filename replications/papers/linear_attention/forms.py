"""Linear attention, ``sum_j phi(q_i).phi(k_j) v_j / sum_j phi(q_i).phi(k_j)``, in the forms of Section 3.

Shapes: query and key features ``[batch, heads, n, features]``, values ``[batch, heads, n, channels]``. The causal form
has three implementations of the same function: `causal_naive` by definition, n^2; `causal_chunked` for training, by
matrix products in chunks and a prefix sum between them; `causal_step` for decoding, with a state of constant size.

A column of ones beside the values makes the denominator come out of the same products. Sums over positions are kept in
float32 or better.

`turned` are query and key features turned by their positions (Su et al. 2021, Section 3.3): they are used only in
the numerator, since with them the denominator could be zero.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from replications.layers.text.blocks import exclusive_prefix, inclusive_prefix, into_chunks

Turned = tuple[Tensor, Tensor] | None

EPS = 1e-6
CHUNK = 128


def full(query: Tensor, key: Tensor, value: Tensor, turned: Turned = None) -> Tensor:
    """Every position sees all others (Eq. 6): ``O(n features channels)``. Padding has key features of zero."""
    if turned is None:
        return divide(query @ (key.transpose(-1, -2) @ with_ones(value)), query.dtype)
    sums = turned[0] @ (turned[1].transpose(-1, -2) @ value)
    return divide(torch.cat([sums, query @ key.sum(dim=-2).unsqueeze(-1)], dim=-1), query.dtype)


def causal_naive(query: Tensor, key: Tensor, value: Tensor, turned: Turned = None) -> Tensor:
    """Eq. 8 and 9 by their ``n x n`` weights: the definition that the others are tested against."""
    return causal_weights(query, key, turned) @ value


def causal_weights(query: Tensor, key: Tensor, turned: Turned = None) -> Tensor:
    """Return the weights ``[batch, heads, n, n]`` themselves; turned, they may be negative."""
    weights = (query @ key.transpose(-1, -2)).tril()
    above = weights if turned is None else (turned[0] @ turned[1].transpose(-1, -2)).tril()
    return above / (weights.sum(dim=-1, keepdim=True) + EPS)


def causal_chunked(query: Tensor, key: Tensor, value: Tensor, chunk: int = CHUNK, turned: Turned = None) -> Tensor:
    """The same in ``O(n (chunk + features) channels)``, all of it batched matrix products."""
    if turned is None:
        return divide(causal_sums(query, key, with_ones(value), chunk), query.dtype)
    below = (query * inclusive_prefix(key, chunk)).sum(dim=-1, keepdim=True)
    return divide(torch.cat([causal_sums(*turned, value, chunk), below], dim=-1), query.dtype)


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


def causal_step(query: Tensor, key: Tensor, value: Tensor, state: Tensor, turned: Turned = None) -> Tensor:
    """Add one position to `state` ``[batch, heads, features, channels + 1]`` in place and answer its query (Eq. 18-20).

    All without the axis of positions: ``[batch, heads, ...]``. The state's last column is the sum of the keys.
    """
    above_query, above_key = turned or (query, key)
    state[..., :-1] += above_key.unsqueeze(-1) * value.unsqueeze(-2)
    state[..., -1] += key
    sums = (above_query.unsqueeze(-2).to(state.dtype) @ state[..., :-1]).squeeze(-2)
    below = (query.to(state.dtype) * state[..., -1]).sum(dim=-1, keepdim=True)
    return divide(torch.cat([sums, below], dim=-1), query.dtype)


def with_ones(value: Tensor) -> Tensor:
    return F.pad(value, (0, 1), value=1.0)


def divide(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """Divide the channels by the last one, the denominator."""
    if sums.dtype in (torch.float16, torch.bfloat16):
        sums = sums.float()
    return (sums[..., :-1] / (sums[..., -1:] + EPS)).to(dtype)
