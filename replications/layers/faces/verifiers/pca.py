"""Principal components, without the seconds that importing scikit-learn costs a short run."""

import numpy as np
import torch

EXACT_DIMENSIONS = 2048
OVERSAMPLING = 20
POWER_ITERATIONS = 4


class PCA:
    """Projection onto the first `components` principal components of the fitted features, not whitened.

    From the covariance's eigenvectors up to `EXACT_DIMENSIONS` features, by randomised SVD (Halko et al. 2011,
    ``torch.pca_lowrank``) above. Fewer components are kept where there are fewer images or features.
    """

    def __init__(self, components: int):
        self.components = components

    def fit(self, features: np.ndarray, seed: int = 0) -> "PCA":
        n, dim = features.shape
        kept = min(self.components, dim, n - 1)
        self.mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = np.asarray(features, np.float32) - self.mean
        if dim <= EXACT_DIMENSIONS:
            _, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
            self.basis = vectors[:, ::-1][:, :kept].astype(np.float32)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                rank = min(kept + OVERSAMPLING, n, dim)
                _, _, vectors = torch.pca_lowrank(torch.from_numpy(centred), rank, center=False, niter=POWER_ITERATIONS)
            self.basis = vectors[:, :kept].numpy()
        return self

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Return float64 ``[n, components]``."""
        return np.asarray((np.asarray(features, np.float32) - self.mean) @ self.basis, np.float64)
