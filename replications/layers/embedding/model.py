"""What a method of the task document_embedding must offer.

A paper's ``build`` gets ``vocabulary``, the number of words, and ``documents``, the number of documents: both are
numbered from 0. It returns an `EmbeddingModel`. Batches, int64 but for ``valid``, one row a pair:

``center`` ``[batch]`` a word of the text; ``context`` ``[batch]`` a word from its window; ``valid`` float32 ``[batch]``
0 where the window reached out of the document, so that ``context`` means nothing; ``document`` ``[batch]`` the document
of the center; ``noise`` ``[batch, negatives]`` words drawn from the noise distribution, which may be the center itself.
"""

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor, nn

from replications.training.stage import Batch


class EmbeddingModel(nn.Module):
    """Vectors of words, and of documents where the method trains them."""

    negatives = 0  # noise words of a pair

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, a mean over pairs."""
        raise NotImplementedError

    def word_vectors(self) -> Tensor | None:
        """Return the vectors of words ``[vocabulary, dim]``; None where the method has none."""
        return None

    def document_vectors(self, counts: csr_array) -> np.ndarray | csr_array | None:
        """Return the vectors of documents; None where they are the averages of their words' vectors.

        `counts` ``[documents, vocabulary]``: how often each word is in each document.
        """
        return None
