"""DeepFace's weighted chi-squared similarity (Taigman et al., CVPR 2014, Sec. 4.2)."""

import numpy as np

from replications.layers.faces.pairs import draw_pairs


class WeightedChi2:
    """``-sum_i w_i (a_i - b_i)^2 / (a_i + b_i)`` with the weights of a linear SVM on pairs.

    Features must not be negative (they follow a ReLU). As in Sec. 3.3 each is divided by its maximum over the
    fitting images and the vector by its length. A feature that is zero in both images adds nothing.
    """

    needs_fit = True

    def __init__(self, pairs: int = 10_000, c: float = 1.0):
        self.pairs = pairs
        self.c = c

    def _normalised(self, features: np.ndarray) -> np.ndarray:
        if features.min() < 0:
            raise ValueError("the chi-squared similarity needs features that are not negative")
        scaled = np.asarray(features, np.float64) / self.maximum
        return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)

    def _terms(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = self._normalised(a), self._normalised(b)
        return np.square(a - b) / np.maximum(a + b, 1e-12)

    def fit(self, features: np.ndarray, identity: np.ndarray, *, seed: int = 0, device: str = "cpu") -> None:
        from sklearn.svm import LinearSVC

        # A feature that never fires stays zero instead of dividing by zero.
        highest = features.max(axis=0)
        self.maximum = np.where(highest > 0, highest, 1.0).astype(np.float64)
        pairs, same = draw_pairs(identity, self.pairs, np.random.default_rng(seed))
        terms = self._terms(features[pairs[:, 0]], features[pairs[:, 1]])
        self.svm = LinearSVC(C=self.c, dual=False, random_state=seed, max_iter=5000).fit(terms, same)

    def score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.svm.decision_function(self._terms(a, b))
