"""The smallest method of the task, which ``new paper`` copies: words of a window get similar vectors, noise others."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, softplus

from replications.layers.embedding.model import EmbeddingModel
from replications.training.stage import Batch


class Words(EmbeddingModel):
    """One vector a word; logistic loss of inner products."""

    negatives = 1

    def __init__(self, vocabulary: int, dim: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(vocabulary, dim))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        center, context, noise = (embedding(batch[name], self.vectors) for name in ("center", "context", "noise"))
        losses = softplus(-(center * context).sum(1)) + softplus((context * noise[:, 0]).sum(1))
        return {"loss": (losses * batch["valid"]).mean()}

    def word_vectors(self) -> Tensor:
        return self.vectors.detach()


def build(vocabulary: int, documents: int, *, dim: int) -> Words:
    """Return the method for a vocabulary."""
    return Words(vocabulary, dim)
