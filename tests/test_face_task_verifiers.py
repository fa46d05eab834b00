"""Verifiers: Joint Bayesian against the direct Gaussian log-ratio, EM, and what each learns."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from replications.errors import RunFailure, UserError
from replications.layers.faces.pairs import distinct_pairs, draw_pairs
from replications.layers.faces.verifiers.base import CosineVerifier
from replications.layers.faces.verifiers.chi2 import WeightedChi2
from replications.layers.faces.verifiers.joint_bayesian import JointBayesian, PCAJointBayesian, fit_joint_bayesian
from replications.layers.faces.verifiers.network import NetworkVerifier


def random_covariance(rng, dim, scale=1.0):
    root = rng.normal(size=(dim, dim))
    return scale * (root @ root.T / dim + 0.1 * np.eye(dim))


def people(rng, s_mu, s_eps, counts):
    """Images of people drawn from the Joint Bayesian model."""
    dim = len(s_mu)
    identity = np.repeat(np.arange(len(counts)), counts)
    mu = rng.multivariate_normal(np.zeros(dim), s_mu, size=len(counts))
    return mu[identity] + rng.multivariate_normal(np.zeros(dim), s_eps, size=len(identity)), identity


def log_likelihood(x, identity, model):
    """The direct sum of joint Gaussian log-densities of each person's images, stacked."""
    total = 0.0
    for person in np.unique(identity):
        images = x[identity == person]
        m = len(images)
        covariance = np.kron(np.ones((m, m)), model.s_mu) + np.kron(np.eye(m), model.s_eps)
        total += multivariate_normal.logpdf(images.ravel(), cov=covariance)
    return total


@pytest.mark.parametrize("dim", [1, 2, 5, 12])
def test_ratio_equals_the_direct_gaussian_log_ratio(dim):
    rng = np.random.default_rng(dim)
    model = JointBayesian(random_covariance(rng, dim), random_covariance(rng, dim, 0.5))
    a, b = rng.normal(size=(20, dim)), rng.normal(size=(20, dim))
    total, zero = model.s_mu + model.s_eps, np.zeros_like(model.s_mu)
    same = np.block([[total, model.s_mu], [model.s_mu, total]])
    different = np.block([[total, zero], [zero, total]])
    both = np.concatenate([a, b], axis=1)
    mean = np.zeros(2 * dim)
    expected = multivariate_normal.logpdf(both, mean, same) - multivariate_normal.logpdf(both, mean, different)
    np.testing.assert_allclose(model.log_ratio(a, b), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model.log_ratio(b, a), expected, rtol=1e-9, atol=1e-9)


def test_a_and_g_are_those_of_the_paper():
    rng = np.random.default_rng(0)
    model = JointBayesian(random_covariance(rng, 4), random_covariance(rng, 4))
    matrix_a, matrix_g, _ = model.ratio_matrices()
    total = model.s_mu + model.s_eps
    inverse = np.linalg.inv(np.block([[total, model.s_mu], [model.s_mu, total]]))
    np.testing.assert_allclose(matrix_g, inverse[:4, 4:], atol=1e-12)
    np.testing.assert_allclose(matrix_a, np.linalg.inv(total) - inverse[:4, :4], atol=1e-12)


def test_em_never_lowers_the_likelihood_and_reports_the_true_one():
    rng = np.random.default_rng(1)
    x, identity = people(rng, random_covariance(rng, 3), random_covariance(rng, 3), rng.integers(1, 6, size=60))
    fitted = [fit_joint_bayesian(x, identity, iterations=n, tolerance=0.0) for n in (1, 5, 30)]
    objective = np.array(fitted[-1].objective)
    assert np.all(np.diff(objective) >= -1e-9 * abs(objective[0]))
    assert objective[-1] > objective[0]
    # The value reported for iteration n is that of the covariances which n - 1 steps have made.
    for earlier in fitted[:2]:
        value = log_likelihood(x, identity, earlier)
        assert fitted[-1].objective[len(earlier.objective)] == pytest.approx(value, rel=1e-9)


def test_em_reaches_a_stationary_point():
    rng = np.random.default_rng(2)
    x, identity = people(rng, random_covariance(rng, 2), random_covariance(rng, 2), rng.integers(1, 6, size=80))
    model = fit_joint_bayesian(x, identity, iterations=2000, tolerance=0.0)
    best = log_likelihood(x, identity, model)
    for _ in range(20):
        nudge = 0.02 * random_covariance(rng, 2)
        for changed in (
            JointBayesian(model.s_mu + nudge, model.s_eps),
            JointBayesian(model.s_mu, model.s_eps + nudge),
            JointBayesian(model.s_mu * 0.98, model.s_eps * 1.02),
        ):
            assert log_likelihood(x, identity, changed) < best + 1e-6


def test_em_recovers_the_covariances_from_unequal_numbers_of_images():
    rng = np.random.default_rng(3)
    s_mu, s_eps = random_covariance(rng, 4), random_covariance(rng, 4, 0.5)
    x, identity = people(rng, s_mu, s_eps, rng.integers(1, 8, size=4000))
    model = fit_joint_bayesian(x, identity, iterations=200)
    np.testing.assert_allclose(model.s_mu, s_mu, atol=0.1 * np.abs(s_mu).max())
    np.testing.assert_allclose(model.s_eps, s_eps, atol=0.05 * np.abs(s_eps).max())


def test_prior_keeps_the_fit_regular_and_its_objective_rising():
    rng = np.random.default_rng(4)
    x, identity = people(rng, np.eye(30), 0.1 * np.eye(30), [2] * 10)  # 20 images of 30 dimensions
    model = fit_joint_bayesian(x, identity, iterations=40, prior_images=2.0, tolerance=0.0)
    assert np.linalg.eigvalsh(model.s_eps).min() > 0
    assert np.all(np.diff(model.objective) >= -1e-9 * abs(model.objective[0]))
    with pytest.raises(RunFailure, match="singular"):
        fit_joint_bayesian(np.zeros((6, 3)), np.repeat(np.arange(3), 2))


def accuracy_of(verifier, features, identity, fitting, seed=0):
    """Accuracy at the best threshold on pairs of the people that are not in `fitting`."""
    from replications.tasks.face_verification.metrics import auc

    verifier.fit(features[fitting], identity[fitting], seed=seed)
    tested = np.flatnonzero(~fitting)
    pairs, same = distinct_pairs(identity[tested], 1000, seed=5)
    pairs = tested[pairs]
    return auc(verifier.score(features[pairs[:, 0]], features[pairs[:, 1]]), same)


def confounded_people(rng, dim=8, count=200, images=6):
    """Half the dimensions tell people apart; the other half, louder, are the image's own."""
    s_mu = np.diag([1.0] * (dim // 2) + [1e-4] * (dim - dim // 2))
    s_eps = np.diag([0.3] * (dim // 2) + [9.0] * (dim - dim // 2))
    x, identity = people(rng, s_mu, s_eps, [images] * count)
    return x.astype(np.float32), identity, identity < count // 2


def test_joint_bayesian_learns_to_ignore_what_varies_within_a_person():
    x, identity, fitting = confounded_people(np.random.default_rng(6))
    cosine = accuracy_of(CosineVerifier(), x, identity, fitting)
    learned = accuracy_of(PCAJointBayesian(components=8), x, identity, fitting)
    assert learned > 0.9 and learned > cosine + 0.15


@pytest.mark.parametrize("exact", [2048, 10])
def test_pca_spans_what_sklearn_finds(exact, monkeypatch):
    from sklearn.decomposition import PCA as Reference

    from replications.layers.faces.verifiers import pca

    monkeypatch.setattr(pca, "EXACT_DIMENSIONS", exact)
    rng = np.random.default_rng(10)
    x = (rng.normal(size=(300, 40)) * np.geomspace(10, 0.1, 40) @ rng.normal(size=(40, 40)) + 5).astype(np.float32)
    ours, reference = pca.PCA(8).fit(x), Reference(8, svd_solver="full").fit(x)
    agreement = np.abs(np.sum(ours.basis * reference.components_.T, axis=0))
    np.testing.assert_allclose(agreement, 1.0, atol=1e-4)
    np.testing.assert_allclose(np.abs(ours.transform(x)), np.abs(reference.transform(x)), rtol=1e-2, atol=0.02)
    assert pca.PCA(100).fit(x[:12]).transform(x).shape == (300, 11)
    np.testing.assert_array_equal(pca.PCA(8).fit(x, seed=1).basis, pca.PCA(8).fit(x, seed=1).basis)


def test_network_verifier_learns_and_is_symmetric_and_deterministic():
    import torch

    x, identity, fitting = confounded_people(np.random.default_rng(7))
    torch.manual_seed(123)
    expected_next = torch.rand(3)
    torch.manual_seed(123)
    first = NetworkVerifier(groups=2, local_units=32, steps=400)
    learned = accuracy_of(first, x, identity, fitting)
    torch.testing.assert_close(torch.rand(3), expected_next)  # the run's random state is untouched
    assert learned > accuracy_of(CosineVerifier(), x, identity, fitting) + 0.1
    second = NetworkVerifier(groups=2, local_units=32, steps=400)
    accuracy_of(second, x, identity, fitting)
    a, b = x[:2000:2], x[1:2000:2]
    np.testing.assert_array_equal(first.score(a, b), second.score(a, b))
    np.testing.assert_allclose(first.score(a, b), first.score(b, a), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(first.score(a[:1], b[:1]), first.score(a, b)[:1], rtol=1e-4, atol=1e-5)


def test_network_verifier_does_not_import_the_compiler():
    # torch.optim would, at the first step, for 4 CPU seconds: more than a smoke run.
    program = (
        "import sys, numpy as np\n"
        "from replications.layers.faces.verifiers.network import NetworkVerifier\n"
        "NetworkVerifier(1, steps=2).fit(np.ones((8, 2), np.float32), np.arange(8) // 2)\n"
        "assert 'torch._dynamo' not in sys.modules and 'sklearn' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent.parent)


def test_network_verifier_keeps_groups_apart_in_its_first_layer():
    import torch

    from replications.layers.faces.verifiers.network import PairNetwork

    network = PairNetwork(groups=60, inputs=640, local_units=80, dropout=0.5)
    assert network.full.in_features == network.full.out_features == 4800
    assert network.local_weight.numel() == 60 * 640 * 80
    small = PairNetwork(groups=3, inputs=8, local_units=5, dropout=0.0)
    a = torch.randn(2, 3, 4, requires_grad=True)
    both = torch.cat([a, torch.randn(2, 3, 4)], dim=2)
    local = torch.einsum("bgi,gih->bgh", both, small.local_weight)
    local[:, 1].sum().backward()
    assert a.grad[:, 1].abs().min() > 0 and a.grad[:, [0, 2]].abs().max() == 0
    with pytest.raises(ValueError, match="groups"):
        NetworkVerifier(groups=3).fit(np.zeros((4, 8), np.float32), np.array([0, 0, 1, 1]))


def test_weighted_chi2_against_its_formula_and_the_plain_sum():
    rng = np.random.default_rng(8)
    x, identity, fitting = confounded_people(rng)
    x = np.maximum(x + 2.0, 0.0)
    verifier = WeightedChi2(pairs=4000)
    learned = accuracy_of(verifier, x, identity, fitting)
    scaled = x / x[fitting].max(axis=0)
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    a, b = unit[0], unit[7]
    kept = a + b > 0
    terms = np.where(kept, (a - b) ** 2 / np.where(kept, a + b, 1), 0)
    expected = verifier.svm.coef_[0] @ terms + verifier.svm.intercept_[0]
    assert verifier.score(x[:1], x[7:8])[0] == pytest.approx(expected, rel=1e-6)
    assert verifier.svm.coef_[0][:4].mean() < verifier.svm.coef_[0][4:].mean() < 0.5
    assert learned > accuracy_of(CosineVerifier(), x, identity, fitting)
    with pytest.raises(ValueError, match="not negative"):
        verifier.score(-x[:1], x[:1])


def test_cosine_against_numpy_and_for_a_zero_vector():
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    a[4] = 0
    expected = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a[:4], b[:4], strict=True)]
    np.testing.assert_allclose(CosineVerifier().score(a, b), [*expected, 0.0])


def test_drawn_pairs_are_what_they_say_and_do_not_favour_people_with_many_images():
    identity = np.repeat([4, 9, 2, 7], [500, 2, 1, 3])
    pairs, same = draw_pairs(identity, 6000, np.random.default_rng(0))
    left, right = identity[pairs[:, 0]], identity[pairs[:, 1]]
    np.testing.assert_array_equal(left == right, same)
    assert np.all(pairs[:, 0] != pairs[:, 1]) and same.sum() == 3000
    of_matched = np.bincount(left[same], minlength=10)
    assert of_matched[2] == 0 and of_matched[[4, 9, 7]].min() > 900
    again, _ = draw_pairs(identity, 6000, np.random.default_rng(0))
    np.testing.assert_array_equal(pairs, again)


def test_distinct_pairs_are_distinct_and_balanced_and_few_where_there_are_few():
    identity = np.repeat(np.arange(5), 3)  # 15 matched pairs in all
    pairs, same = distinct_pairs(identity, 1000, seed=0)
    assert len({tuple(sorted(pair)) for pair in pairs.tolist()}) == len(pairs)
    assert same.sum() == 15 and (~same).sum() == 15
    np.testing.assert_array_equal(identity[pairs[:, 0]] == identity[pairs[:, 1]], same)
    with pytest.raises(UserError, match="validation_fraction"):
        distinct_pairs(np.arange(5), 10, seed=0)
    with pytest.raises(UserError, match="validation_fraction"):
        distinct_pairs(np.zeros(5, int), 10, seed=0)
