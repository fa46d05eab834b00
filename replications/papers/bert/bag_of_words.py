"""A bag of words: logistic regression on tf-idf of the words, by scikit-learn. The order of words plays no part."""

import numpy as np
import torch
from torch import Tensor

from replications.datasets.text.words import SPECIAL
from replications.layers.text.classifier import TextModel


class BagOfWords(TextModel):
    """Term frequencies times idf (of all training texts), of length 1; `inverse_penalty` is scikit-learn's C."""

    fits = True

    def __init__(self, vocabulary: int, inverse_penalty: float):
        super().__init__()
        self.vocabulary, self.inverse_penalty = vocabulary, inverse_penalty

    def counts(self, tokens: np.ndarray):
        """Return how often each known word occurs, a sparse ``[n, vocabulary]``."""
        from scipy.sparse import csr_matrix

        known = tokens >= SPECIAL
        rows = np.broadcast_to(np.arange(len(tokens))[:, None], tokens.shape)[known]
        shape = (len(tokens), self.vocabulary)
        return csr_matrix((np.ones(len(rows)), (rows, tokens[known])), shape=shape)

    def fit(self, unlabelled: np.ndarray, tokens: np.ndarray, label: np.ndarray) -> None:
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.linear_model import LogisticRegression

        self.weighting = TfidfTransformer().fit(self.counts(unlabelled))
        regression = LogisticRegression(C=self.inverse_penalty, max_iter=1000)
        self.regression = regression.fit(self.weighting.transform(self.counts(tokens)), label)

    def class_logits(self, tokens: Tensor) -> Tensor:
        found = self.regression.decision_function(self.weighting.transform(self.counts(tokens.cpu().numpy())))
        found = torch.from_numpy(found).float().to(tokens.device)
        return torch.stack([-found, found], dim=1) if found.ndim == 1 else found


def build(vocabulary: int, *, inverse_penalty: float = 1.0) -> BagOfWords:
    """Two words are told apart by nothing but where they occur in the labelled texts."""
    return BagOfWords(vocabulary, inverse_penalty)
