"""The skip-gram model with negative sampling (Mikolov et al., NIPS 2013)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from replications.layers.embedding.model import EmbeddingModel
from replications.layers.embedding.negative_sampling import pair_losses, start_vectors
from replications.training.stage import Batch


class SkipGram(EmbeddingModel):
    """The vector of a word tells the words of its window."""

    def __init__(self, vocabulary: int, dim: int, negatives: int, spread: float | None):
        super().__init__()
        self.negatives = negatives
        self.input = start_vectors(vocabulary, dim, spread)
        self.output = nn.Parameter(torch.zeros(vocabulary, dim))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return equation 4 with the sign turned, a mean over pairs."""
        given, told = embedding(batch["context"], self.input), embedding(batch["center"], self.output)
        losses = pair_losses(given, told, batch["center"], batch["noise"], self.output)
        return {"loss": (losses * batch["valid"]).mean()}

    def word_vectors(self) -> Tensor:
        return self.input.detach()


def build(vocabulary: int, documents: int, *, dim: int, negatives: int = 5, spread: float | None = None) -> SkipGram:
    """Return skip-gram for a vocabulary; `spread` is that of the words' vectors at the start (None: 1 / dim)."""
    return SkipGram(vocabulary, dim, negatives, spread)
