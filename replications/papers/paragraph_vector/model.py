"""Paragraph vectors (Le and Mikolov, ICML 2014): PV-DBOW, alone and with words; bags of words beside them."""

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfTransformer
from torch import Tensor, nn
from torch.nn.functional import embedding

from replications.layers.embedding.model import EmbeddingModel
from replications.layers.embedding.negative_sampling import pair_losses, start_vectors
from replications.training.stage import Batch


class ParagraphVector(EmbeddingModel):
    """The vector of a document tells its words (section 2.3); `words`: so do the vectors of words in the window."""

    def __init__(self, vocabulary: int, documents: int, dim: int, negatives: int, words: bool, spread: float | None):
        super().__init__()
        self.negatives = negatives
        self.document = start_vectors(documents, dim, spread)
        self.input = start_vectors(vocabulary, dim, spread) if words else None
        self.output = nn.Parameter(torch.zeros(vocabulary, dim))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean over pairs of the document's loss and, with words, the word's."""
        word, noise = batch["center"], batch["noise"]
        told = embedding(word, self.output)
        losses = pair_losses(embedding(batch["document"], self.document), told, word, noise, self.output)
        if self.input is not None:
            own = pair_losses(embedding(batch["context"], self.input), told, word, noise, self.output)
            losses = losses + own * batch["valid"]
        return {"loss": losses.mean()}

    def word_vectors(self) -> Tensor | None:
        return None if self.input is None else self.input.detach()

    def document_vectors(self, counts: csr_array) -> np.ndarray:
        return self.document.detach().cpu().numpy()


class BagOfWords(EmbeddingModel):
    """Counts of words times their inverse document frequency. Nothing is trained."""

    def document_vectors(self, counts: csr_array) -> csr_array:
        return TfidfTransformer(sublinear_tf=True).fit_transform(counts)


def build(
    vocabulary: int,
    documents: int,
    *,
    dim: int,
    negatives: int = 5,
    words: bool = True,
    spread: float | None = None,
) -> ParagraphVector:
    """Return PV-DBOW; `spread` is that of the vectors at the start (None: 1 / dim)."""
    return ParagraphVector(vocabulary, documents, dim, negatives, words, spread)


def build_bag(vocabulary: int, documents: int) -> BagOfWords:
    """Return the reference without training."""
    return BagOfWords()
