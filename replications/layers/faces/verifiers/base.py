"""What a verifier offers, and the cosine, which learns nothing."""

from typing import Protocol

import numpy as np


class Verifier(Protocol):
    """Scores pairs of features, higher for more similar ones; symmetric in the two images.

    `needs_fit` says whether `fit` must have been called. It is given features ``[n, dim]`` (float32) and
    identities ``[n]`` of people that are used neither to train the network nor in the test.
    """

    needs_fit: bool

    def fit(self, features: np.ndarray, identity: np.ndarray, *, seed: int = 0, device: str = "cpu") -> None: ...

    def score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return float64 scores ``[p]`` of the pairs ``(a[i], b[i])``, each ``[p, dim]``."""
        ...


class CosineVerifier:
    """The cosine of the two features: 1 for the same direction; 0 where one has no length."""

    needs_fit = False

    def fit(self, features: np.ndarray, identity: np.ndarray, *, seed: int = 0, device: str = "cpu") -> None:
        """Nothing is learned."""

    def score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.einsum("pd,pd->p", a, b) / np.maximum(length, 1e-12)
