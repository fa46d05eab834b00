"""Transformers with linear attention (Katharopoulos et al. 2020), and three later maps as ablations."""

import torch
from torch import Tensor, nn

from replications.errors import UserError, nearest
from replications.papers.linear_attention.features import CosFeatures, EluFeatures, RandomFeatures
from replications.papers.linear_attention.forms import (
    CHUNK,
    causal_chunked,
    causal_naive,
    causal_step,
    causal_sums,
    full,
    with_ones,
)
from replications.tasks.language_modelling.blocks import (
    Block,
    FeedForward,
    Mixer,
    State,
    exclusive_prefix,
    head_width,
    into_chunks,
    join_heads,
    split_heads,
)
from replications.tasks.language_modelling.model import SequenceModel

MAPS = ("elu", "cosformer", "favor", "efficient")
FORMS = ("chunked", "naive")
LARGEST_LOGIT = 30.0


class LinearAttention(Mixer):
    """Multi-head attention with ``phi(q).phi(k)`` for ``exp(q.k)``. `form` says how the causal sum is computed."""

    decodes = True

    def __init__(self, width: int, heads: int, causal: bool, features: nn.Module, form: str, chunk: int):
        super().__init__()
        if form not in FORMS:
            raise UserError(f"unknown form '{form}' of causal linear attention{nearest(form, FORMS)}")
        self.heads, self.causal, self.form, self.chunk = heads, causal, form, chunk
        self.into = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.features = features

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.into(x).chunk(3, dim=-1))
        query, key = self.features.query(query), self.features.key(key)
        if valid is not None:
            key = key * valid[:, None, :, None]
        if not self.causal:
            mixed = full(query, key, value)
        elif self.form == "naive":
            mixed = causal_naive(query, key, value)
        else:
            mixed = causal_chunked(query, key, value, self.chunk)
        return self.out(join_heads(mixed))

    def start(self, batch: int, capacity: int, like: Tensor) -> State:
        channels = self.out.in_features // self.heads
        wide = torch.promote_types(like.dtype, torch.float32)
        return {"sum": like.new_zeros(batch, self.heads, self.features.features, channels + 1, dtype=wide)}

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.into(x[:, None]).chunk(3, dim=-1))
        query, key = self.features.query(query, position), self.features.key(key, position)
        mixed = causal_step(query[:, :, 0], key[:, :, 0], value[:, :, 0], state["sum"])
        return self.out(mixed.flatten(1))


class EfficientAttention(Mixer):
    """Efficient attention (Shen et al. 2021): softmax of queries over features, of keys over positions, then
    ``q (k^T v)``. The implied weights of each query sum to one without a denominator.

    The causal form normalises each feature of the keys over the positions seen so far, which keeps that sum.
    """

    decodes = True

    def __init__(self, width: int, heads: int, causal: bool, chunk: int):
        super().__init__()
        self.heads, self.causal, self.chunk = heads, causal, chunk
        self.into = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.into(x).chunk(3, dim=-1))
        query, key = query.softmax(dim=-1), exponential(key)
        if valid is not None:
            key = key * valid[:, None, :, None]
        if self.causal:
            query = query / inclusive_prefix(key, self.chunk).to(query.dtype)
            mixed = causal_sums(query, key, value, self.chunk).to(value.dtype)
        else:
            mixed = query @ ((key / key.sum(dim=-2, keepdim=True)).transpose(-1, -2) @ value)
        return self.out(join_heads(mixed))

    def start(self, batch: int, capacity: int, like: Tensor) -> State:
        channels = self.out.in_features // self.heads
        wide = torch.promote_types(like.dtype, torch.float32)
        return {"sum": like.new_zeros(batch, self.heads, channels, channels + 1, dtype=wide)}

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in self.into(x).chunk(3, dim=-1))
        query, key, total = query.softmax(dim=-1), exponential(key), state["sum"]
        total += key.unsqueeze(-1) * with_ones(value).unsqueeze(-2)
        weights = query.to(total.dtype) / total[..., -1]
        mixed = (weights.unsqueeze(-2) @ total[..., :-1]).squeeze(-2)
        return self.out(mixed.to(x.dtype).flatten(1))


def exponential(logit: Tensor) -> Tensor:
    """``exp`` of logits held within +-30: no maximum over positions, which a causal sum must not look ahead for."""
    wide = torch.promote_types(logit.dtype, torch.float32)
    return logit.to(wide).clamp(-LARGEST_LOGIT, LARGEST_LOGIT).exp().to(logit.dtype)


def inclusive_prefix(x: Tensor, chunk: int) -> Tensor:
    """Sum over the positions up to each: ``[..., n, channels]``, in float32 or better."""
    n = x.shape[-2]
    x = into_chunks(x.to(torch.promote_types(x.dtype, torch.float32)), min(chunk, n))
    below = torch.ones(x.shape[-2], x.shape[-2], device=x.device, dtype=x.dtype).tril()
    with torch.autocast(x.device.type, enabled=False):
        sums = below @ x + exclusive_prefix(x.sum(dim=-2, keepdim=True))
    return sums.flatten(-3, -2)[..., :n, :]


def build(
    vocabulary: int,
    length: int,
    causal: bool,
    num_classes: int | None,
    *,
    width: int,
    depth: int,
    heads: int,
    features: str = "elu",
    random_features: int | None = None,
    form: str = "chunked",
    chunk: int = CHUNK,
    gated: bool = False,
    norm: str = "layer",
) -> SequenceModel:
    """`depth` layers of linear attention and feed-forward, with scaled sinusoidal positions.

    `features` is the map; FAVOR+ has `random_features` of them a head (default: twice its channels).
    """
    channels = head_width(width, heads)

    def mixer() -> Mixer:
        if features == "efficient":
            return EfficientAttention(width, heads, causal, chunk)
        if features == "elu":
            phi = EluFeatures(channels)
        elif features == "cosformer":
            phi = CosFeatures(channels, length)
        elif features == "favor":
            phi = RandomFeatures(channels, random_features or 2 * channels)
        else:
            raise UserError(f"unknown feature map '{features}'{nearest(features, MAPS)}")
        return LinearAttention(width, heads, causal, phi, form, chunk)

    blocks = [Block(width, mixer(), FeedForward(width, gated=gated), norm) for _ in range(depth)]
    return SequenceModel(blocks, width, vocabulary, num_classes, sinusoidal=True, norm=norm)
