"""PCA and Joint Bayesian (Chen et al., "Bayesian Face Revisited: A Joint Formulation", ECCV 2012).

A centred feature is ``x = mu + eps``: the person, ``mu ~ N(0, S_mu)``, and the image, ``eps ~ N(0, S_eps)``.
Two images are compared by the log-ratio of their joint densities under "same person" and "two persons".

`fit_joint_bayesian` is expectation maximisation over people with any number of images. The paper's M-step
takes the covariance of the expected ``mu`` and ``eps``; here the posterior covariance is added, which is
what makes each step raise the likelihood. Everything is computed in the basis where ``S_eps`` is the
identity and ``S_mu`` diagonal, so that people with different numbers of images need no matrix inverse of
their own.
"""

from dataclasses import dataclass

import numpy as np

from replications.errors import RunFailure
from replications.layers.faces.verifiers.pca import PCA


@dataclass(frozen=True)
class JointBayesian:
    """The two covariances ``[dim, dim]``, and the log-likelihood (plus log-prior) by iteration of the fit."""

    s_mu: np.ndarray
    s_eps: np.ndarray
    objective: tuple[float, ...] = ()

    def ratio_matrices(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Return A and G of Chen et al., equation 4, and the constant of the log-ratio that it leaves out.

        ``[[F + G, G], [G, F + G]]`` is the inverse of ``[[S_mu + S_eps, S_mu], [S_mu, S_mu + S_eps]]`` and
        ``A = (S_mu + S_eps)^-1 - (F + G)``.
        """
        total = self.s_mu + self.s_eps
        # The sum and the difference of the two images are independent: both halves invert on their own.
        of_sum = np.linalg.inv(total + self.s_mu)
        of_difference = np.linalg.inv(self.s_eps)
        f_plus_g, g = (of_sum + of_difference) / 2, (of_sum - of_difference) / 2
        log_same = np.linalg.slogdet(total + self.s_mu)[1] + np.linalg.slogdet(self.s_eps)[1]
        log_different = 2 * np.linalg.slogdet(total)[1]
        return np.linalg.inv(total) - f_plus_g, g, float(log_different - log_same) / 2

    def log_ratio(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return ``log p(a, b | same) - log p(a, b | different)`` (nats) of centred pairs ``[p, dim]``."""
        matrix_a, matrix_g, constant = self.ratio_matrices()
        squares = np.einsum("pd,pd->p", a @ matrix_a, a) + np.einsum("pd,pd->p", b @ matrix_a, b)
        return squares / 2 - np.einsum("pd,pd->p", a @ matrix_g, b) + constant


def fit_joint_bayesian(
    x: np.ndarray,
    identity: np.ndarray,
    iterations: int = 50,
    prior_images: float = 0.0,
    tolerance: float = 1e-6,
) -> JointBayesian:
    """Estimate ``S_mu`` and ``S_eps`` from centred features ``[n, dim]`` by expectation maximisation.

    `prior_images` is the strength of an inverse-Wishart prior that draws ``S_eps`` towards a multiple of the
    identity, as that many images more of average spread: it keeps ``S_eps`` invertible where images are few.
    The fit ends when the objective a feature rises by less than `tolerance`, or after `iterations`. Raises
    RunFailure where ``S_eps`` is singular.
    """
    x = np.asarray(x, np.float64)
    _, person, count = np.unique(identity, return_inverse=True, return_counts=True)
    n, dim = x.shape
    mean = np.zeros((len(count), dim))
    np.add.at(mean, person, x)
    mean /= count[:, None]
    within = (x - mean[person]).T @ (x - mean[person])
    spread = np.trace(x.T @ x) / (n * dim)
    prior = prior_images * spread * np.eye(dim)

    s_mu = mean.T @ mean / len(count)
    s_eps = within / n + spread * 1e-3 * np.eye(dim)
    objective: list[float] = []
    for _ in range(iterations):
        basis, variance = _common_basis(s_mu, s_eps)
        projected = mean @ basis
        precision = 1.0 + count[:, None] * variance
        log_likelihood = -0.5 * (
            n * dim * np.log(2 * np.pi)
            + (n + prior_images) * np.linalg.slogdet(s_eps)[1]
            + np.log(precision).sum()
            + (count[:, None] * projected**2 / precision).sum()
            + (basis * ((within + prior) @ basis)).sum()
        )
        objective.append(float(log_likelihood))
        if len(objective) > 1 and objective[-1] - objective[-2] < tolerance * n:
            break
        # E-step: mean and (diagonal) covariance of each person's mu.
        uncertainty = variance / precision
        expected = count[:, None] * uncertainty * projected
        # M-step: second moments of mu and of eps = x - mu, brought back from the basis.
        moment_mu = expected.T @ expected + np.diag(uncertainty.sum(axis=0))
        rest = projected - expected
        moment_eps = (rest * count[:, None]).T @ rest + np.diag((count[:, None] * uncertainty).sum(axis=0))
        back = basis.T @ s_eps
        s_mu = back.T @ (moment_mu / len(count)) @ back
        s_eps = (within + back.T @ moment_eps @ back + prior) / (n + prior_images)
        s_mu, s_eps = (s_mu + s_mu.T) / 2, (s_eps + s_eps.T) / 2
    return JointBayesian(s_mu, s_eps, tuple(objective))


def _common_basis(s_mu: np.ndarray, s_eps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return V and variances >= 0 with ``V' S_eps V = I`` and ``V' S_mu V = diag(variances)``."""
    try:
        root = np.linalg.cholesky(s_eps)
    except np.linalg.LinAlgError:
        raise RunFailure("error", "Joint Bayesian: S_eps is singular; give it a larger prior") from None
    inverse = np.linalg.inv(root)
    variance, vectors = np.linalg.eigh(inverse @ s_mu @ inverse.T)
    return inverse.T @ vectors, np.maximum(variance, 0.0)


class PCAJointBayesian:
    """PCA to `components`, then Joint Bayesian; the score is the log-likelihood ratio in nats.

    `prior` is the strength of the prior as a fraction of the number of images.
    """

    needs_fit = True

    def __init__(self, components: int = 150, iterations: int = 50, prior: float = 0.01):
        self.components = components
        self.iterations = iterations
        self.prior = prior

    def fit(self, features: np.ndarray, identity: np.ndarray, *, seed: int = 0, device: str = "cpu") -> None:
        self.pca = PCA(self.components).fit(features, seed)
        self.model = fit_joint_bayesian(
            self.pca.transform(features), identity, self.iterations, self.prior * len(features)
        )

    def score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.model.log_ratio(self.pca.transform(a), self.pca.transform(b))
