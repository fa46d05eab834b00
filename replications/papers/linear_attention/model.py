"""Transformers with linear attention (Katharopoulos et al. 2020), and three later maps as ablations."""

import torch
from torch import Tensor, nn

from replications.errors import UserError, nearest
from replications.layers.text.blocks import (
    FeedForward,
    Mixer,
    Rotary,
    State,
    head_width,
    inclusive_prefix,
    join_heads,
    split_heads,
)
from replications.layers.text.model import SequenceModel, residual_model
from replications.papers.linear_attention.features import CosFeatures, EluFeatures, RandomFeatures
from replications.papers.linear_attention.forms import (
    CHUNK,
    EPS,
    causal_chunked,
    causal_naive,
    causal_step,
    causal_sums,
    causal_weights,
    full,
    with_ones,
)

MAPS = ("elu", "cosformer", "favor", "efficient")
FORMS = ("chunked", "naive")
POSITIONS = ("sinusoidal", "rotary")
LARGEST_LOGIT = 30.0


class LinearAttention(Mixer):
    """Multi-head attention with ``phi(q).phi(k)`` for ``exp(q.k)``. `form` says how the causal sum is computed.

    `rotary` turns the features of the numerator by their positions (Su et al. 2021, Eq. 19).
    """

    decodes = True

    def __init__(
        self, width: int, heads: int, causal: bool, features: nn.Module, form: str, chunk: int, rotary: bool = False
    ):
        super().__init__()
        if form not in FORMS:
            raise UserError(f"unknown form '{form}' of causal linear attention{nearest(form, FORMS)}")
        self.heads, self.causal, self.form, self.chunk = heads, causal, form, chunk
        self.into = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.features = features
        self.rotary = Rotary(features.features) if rotary else None

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        query, key, value = self._projections(x)
        if valid is not None:
            key = key * valid[:, None, :, None]
        turned = self._turned(query, key)
        if not self.causal:
            mixed = full(query, key, value, turned)
        elif self.form == "naive":
            mixed = causal_naive(query, key, value, turned)
        else:
            mixed = causal_chunked(query, key, value, self.chunk, turned)
        return self.out(join_heads(mixed))

    def _projections(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Return query features, key features and values, ``[batch, heads, n, ...]``."""
        query, key, value = (split_heads(part, self.heads) for part in self.into(x).chunk(3, dim=-1))
        return self.features.query(query, start), self.features.key(key, start), value

    def _turned(self, query: Tensor, key: Tensor, start: int = 0) -> tuple[Tensor, Tensor] | None:
        return None if self.rotary is None else (self.rotary(query, start), self.rotary(key, start))

    def weights(self, x: Tensor) -> Tensor:
        query, key, _ = self._projections(x)
        turned = self._turned(query, key)
        if self.causal:
            return causal_weights(query, key, turned)
        above_query, above_key = turned or (query, key)
        below = query @ key.sum(dim=-2).unsqueeze(-1)
        return above_query @ above_key.transpose(-1, -2) / (below + EPS)

    def start(self, batch: int, capacity: int, like: Tensor) -> State:
        channels = self.out.in_features // self.heads
        wide = torch.promote_types(like.dtype, torch.float32)
        return {"sum": like.new_zeros(batch, self.heads, self.features.features, channels + 1, dtype=wide)}

    def step(self, x: Tensor, position: int, state: State) -> Tensor:
        query, key, value = self._projections(x[:, None], position)
        turned = self._turned(query, key, position)
        turned = None if turned is None else (turned[0][:, :, 0], turned[1][:, :, 0])
        mixed = causal_step(query[:, :, 0], key[:, :, 0], value[:, :, 0], state["sum"], turned)
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
        query, key, value = self._projections(x)
        if valid is not None:
            key = key * valid[:, None, :, None]
        if self.causal:
            query = query / inclusive_prefix(key, self.chunk).to(query.dtype)
            mixed = causal_sums(query, key, value, self.chunk).to(value.dtype)
        else:
            mixed = query @ ((key / key.sum(dim=-2, keepdim=True)).transpose(-1, -2) @ value)
        return self.out(join_heads(mixed))

    def _projections(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (split_heads(part, self.heads) for part in self.into(x).chunk(3, dim=-1))
        return query.softmax(dim=-1), exponential(key), value

    def weights(self, x: Tensor) -> Tensor:
        query, key, _ = self._projections(x)
        if self.causal:
            return (query / key.cumsum(dim=-2) @ key.transpose(-1, -2)).tril()
        return query / key.sum(dim=-2, keepdim=True) @ key.transpose(-1, -2)

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
    positions: str = "sinusoidal",
    gated: bool = False,
    norm: str = "layer",
) -> SequenceModel:
    """`depth` layers of linear attention and feed-forward; `positions` are scaled sinusoidal, or rotary.

    `features` is the map; FAVOR+ has `random_features` of them a head (default: twice its channels).
    """
    channels = head_width(width, heads)
    if positions not in POSITIONS:
        raise UserError(f"linear_attention: positions must be one of {', '.join(POSITIONS)}, not '{positions}'")
    rotary = positions == "rotary"
    if rotary and features != "elu":
        raise UserError(f"linear_attention: rotary positions are for features=elu, not '{features}'")

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
        return LinearAttention(width, heads, causal, phi, form, chunk, rotary)

    return residual_model(
        mixer, depth, vocabulary, num_classes, width=width, norm=norm, sinusoidal=not rotary,
        feed_forward=lambda: FeedForward(width, gated=gated),
    )  # fmt: skip
