"""BERT (Devlin et al., NAACL 2019): an encoder that sees both sides of a word, trained to tell masked words.

Section 3 and the authors' code: learned positions, norm after each sum, GELU; words are told through a layer of their
own and the transposed embedding. A text's class is told from the mean of its positions (README).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.datasets.text.words import PADDING
from replications.layers.text.blocks import head_width, join_heads, split_heads
from replications.layers.text.classifier import TextModel


class Layer(nn.Module):
    """Attention and feed-forward, each added to its input, which is then normalised."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        head_width(width, heads)
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Mix ``[batch, n, width]``; `seen` bool ``[batch, 1, n or 1, n]``: what a position (row) may look at."""
        query, key, value = (split_heads(part, self.heads) for part in self.into(x).chunk(3, dim=-1))
        share = self.dropout.p if self.training else 0.0
        mixed = join_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=share))
        x = self.attention_norm(x + self.dropout(self.out(mixed)))
        return self.norm(x + self.dropout(self.outer(F.gelu(self.inner(x)))))


class Bert(TextModel):
    """The encoder with its two heads. `causal`: a position sees its left side and itself alone."""

    word_head = ("transform", "word_bias")
    class_head = ("classifier",)

    def __init__(
        self, vocabulary: int, length: int, num_classes: int, width: int, depth: int, heads: int, causal: bool,
        dropout: float, init_std: float,
    ):  # fmt: skip
        super().__init__()
        self.causal = causal
        self.embedding, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.embedding_norm, self.dropout = nn.LayerNorm(width, eps=1e-12), nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(depth))
        self.transform, self.transform_norm = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.word_bias = nn.Parameter(torch.zeros(vocabulary))
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=init_std, a=-2 * init_std, b=2 * init_std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def encode(self, tokens: Tensor) -> Tensor:
        """Return the last layer's ``[batch, n, width]``."""
        n = tokens.shape[1]
        seen = (tokens != PADDING)[:, None, None, :]
        first = torch.arange(n, device=tokens.device) == 0
        seen = seen | first  # an empty text has something to look at
        if self.causal:
            seen = seen & torch.ones(n, n, dtype=torch.bool, device=tokens.device).tril()
        x = self.dropout(self.embedding_norm(self.embedding(tokens) + self.position.weight[:n]))
        for layer in self.layers:
            x = layer(x, seen)
        return x

    def word_logits(self, tokens: Tensor, places: Tensor) -> Tensor:
        x = self.encode(tokens)
        x = x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))
        x = self.transform_norm(F.gelu(self.transform(x)))
        return F.linear(x, self.embedding.weight, self.word_bias)

    def features(self, tokens: Tensor) -> Tensor:
        """Return the mean over a text's positions; zeros for an empty text."""
        real = (tokens != PADDING)[:, :, None]
        return (self.encode(tokens) * real).sum(1) / real.sum(1).clamp_min(1)

    def class_logits(self, tokens: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.features(tokens)))

    def start_from(self, other: TextModel) -> None:
        learned = {name: w for name, w in other.state_dict().items() if not name.startswith(self.class_head)}
        self.load_state_dict(learned, strict=False)


def build(
    vocabulary: int,
    length: int,
    num_classes: int,
    *,
    width: int,
    depth: int,
    heads: int,
    causal: bool = False,
    dropout: float = 0.1,
    init_std: float = 0.02,
) -> Bert:
    """`depth` layers; the base size is width 768, depth 12, heads 12, with 30,522 words and length 512."""
    return Bert(vocabulary, length, num_classes, width, depth, heads, causal, dropout, init_std)
