"""OadTR (Wang et al. 2021): a Transformer reads a window of frames that ends now.

Section 3.2, encoder: features are projected, a learned task token is put after them, positions are added; layers of

    x = x + MHSA(LN(x)),   x = x + FFN(LN(x))

Section 3.3, decoder: learned queries, one for each frame ahead, read the encoder's output; layers of

    q = LN(q + MHSA(q)),   q = LN(q + CrossAttention(q, x)),   q = LN(q + FFN(q))

Section 3.4: the action now is told from the token beside the mean of the decoder's outputs, an action ahead from its
query's output.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.layers.actions.model import ActionDetector, Logits, require_heads


class SelfAttention(nn.Module):
    """Attention of the encoder; its queries, keys and values have no bias, as in the authors' code."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Norm first."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), SelfAttention(width, heads, dropout)
        self.feed_norm, self.feed = nn.LayerNorm(width), feed_forward(width, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.feed(self.feed_norm(x))


class CrossAttention(nn.Module):
    """Attention from queries to a memory, or of the queries to those before them."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, *, causal: bool = False) -> Tensor:
        q, k, v = self.query(x), self.key(memory), self.value(memory)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Norm last. A query sees itself and those of nearer frames."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.among, self.across = (CrossAttention(width, heads, dropout) for _ in range(2))
        self.feed = feed_forward(width, hidden, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        query = self.norms[0](query + self.dropout(self.among(query, query, causal=True)))
        query = self.norms[1](query + self.dropout(self.across(query, memory)))
        return self.norms[2](query + self.feed(query))


def feed_forward(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """Two linear maps with GELU and dropout."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
    )


class OadTR(ActionDetector):
    """The network above. Without decoder layers it tells the action now alone, from the token.

    `pool` takes the place of the token: ``token``, or the ``mean`` or the ``last`` of the frames' outputs, where no
    token is read. With `future_weight` 0 there is a decoder, but nothing is asked of its single outputs.
    """

    def __init__(
        self, features: int, classes: int, window: int, horizon: int, *, width: int, layers: int, heads: int,
        hidden: int, decoder_layers: int, decoder_heads: int, dropout: float, pool: str, future_weight: float,
    ):  # fmt: skip
        super().__init__(window, horizon, future_weight)
        require_heads(width, heads)
        require_heads(width, decoder_heads)
        self.pool = POOLS[pool]
        self.project = nn.Linear(features, width)
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if pool == "token" else None
        self.positions = nn.Parameter(torch.randn(window + (pool == "token"), width))
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.Sequential(*(EncoderLayer(width, heads, hidden, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(DecoderLayer(width, decoder_heads, hidden, dropout) for _ in range(decoder_layers))
        if decoder_layers:
            self.queries = nn.Parameter(torch.zeros(1, horizon, width))
            self.decoder_norm = nn.LayerNorm(width)
        self.ahead = nn.Linear(width, classes) if decoder_layers and future_weight else None
        self.now = nn.Linear(2 * width if decoder_layers else width, classes)

    def encode(self, features: Tensor) -> Tensor:
        """Return ``[batch, window (+ 1 with the token), width]``."""
        x = self.project(features)
        if self.token is not None:
            x = torch.cat([x, self.token.expand(len(x), -1, -1)], dim=1)
        return self.norm(self.encoder(self.dropout(x + self.positions)))

    def logits(self, features: Tensor) -> Logits:
        memory = self.encode(features)
        summary, ahead = self.pool(memory), None
        if self.decoder:
            query = self.queries.expand(len(memory), -1, -1)
            for layer in self.decoder:
                query = layer(query, memory)
            query = self.dropout(self.decoder_norm(query))
            summary = torch.cat([summary, query.mean(1)], dim=1)
            ahead = self.ahead(query)[:, None] if self.ahead is not None else None
        return self.now(summary)[:, None], ahead


POOLS = {"token": lambda x: x[:, -1], "last": lambda x: x[:, -1], "mean": lambda x: x.mean(1)}


def build(
    features: int, classes: int, window: int, horizon: int, *,
    width: int, layers: int, heads: int, hidden: int, decoder_layers: int, decoder_heads: int,
    dropout: float = 0.0, pool: str = "token", future_weight: float = 0.5,
) -> OadTR:  # fmt: skip
    """OadTR; sizes are the task's or the method's options."""
    return OadTR(
        features, classes, window, horizon, width=width, layers=layers, heads=heads, hidden=hidden,
        decoder_layers=decoder_layers, decoder_heads=decoder_heads, dropout=dropout, pool=pool,
        future_weight=future_weight,
    )  # fmt: skip
