"""Estimators against what they estimate: enumeration in float64, naive forms, and laws of the draws."""

import itertools
import math

import numpy as np
import pytest
import torch

from replications.errors import UserError
from replications.layers.gradients.categorical_vae import CategoricalVAE
from replications.layers.gradients.distributions import Gaussian, OneHot
from replications.layers.gradients.leave_one_out import LeaveOneOut
from replications.papers.gumbel_softmax import model as gumbel_softmax
from replications.papers.pathwise import model as pathwise
from replications.papers.rebar import model as rebar
from replications.papers.reinforce import model as reinforce
from replications.papers.stochastic_neurons import model as straight_through
from replications.tasks.gradient_estimation.problems import GaussianProblem, OneHotProblem


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_hot_problem(variables: int = 1, categories: int = 4) -> OneHotProblem:
    generator = seeded(3)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return OneHotProblem(normal(variables, categories), normal(variables * categories, 3), normal(3))


class Given(OneHot):
    """Draws what it is given, in turn: an expectation over draws becomes a sum over them."""

    def __init__(self, logits, draws):
        super().__init__(logits)
        self.draws = iter(draws)

    def sample(self, generator=None):
        return next(self.draws)


def estimate(estimator, problem, rows, draws):
    """Return the estimates ``[rows, variables, K]`` for given draws."""
    logits = problem.parameter.expand(rows, -1, -1).clone().requires_grad_()
    value = estimator.surrogate(problem.f, Given(logits, draws))
    return torch.autograd.grad(value.sum(), logits)[0]


def values_of(problem):
    """Return all values of y ``[values, variables, K]`` and their probabilities."""
    variables, categories = problem.parameter.shape
    rows = list(itertools.product(range(categories), repeat=variables))
    probabilities = problem.parameter.softmax(-1)
    weight = [math.prod(float(probabilities[i, k]) for i, k in enumerate(row)) for row in rows]
    return torch.eye(categories, dtype=torch.float64)[torch.tensor(rows)], torch.tensor(weight, dtype=torch.float64)


@pytest.mark.parametrize(("variables", "categories"), [(1, 8), (2, 3)])
def test_the_exact_gradient_is_that_of_finite_differences(variables, categories):
    problem = one_hot_problem(variables, categories)
    weight, target = problem.weight.numpy(), problem.target.numpy()

    def expectation(logits):
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        total = 0.0
        for row in itertools.product(range(categories), repeat=variables):
            y = np.concatenate([np.eye(categories)[k] for k in row])
            total += np.prod([p[i, k] for i, k in enumerate(row)]) * np.sum((np.tanh(y @ weight) - target) ** 2)
        return total

    logits, step = problem.parameter.numpy(), 1e-6
    found = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        moved = np.zeros_like(logits)
        moved[place] = step
        found[place] = (expectation(logits + moved) - expectation(logits - moved)) / (2 * step)
    np.testing.assert_allclose(problem.exact().numpy(), found, rtol=1e-7, atol=1e-9)


def test_the_exact_gradient_of_a_gaussian_is_that_of_finite_differences():
    problem = GaussianProblem(torch.tensor([0.5, -1.0], dtype=torch.float64))
    up, down = ((m - 2).square() + 1 for m in (problem.parameter + 1e-6, problem.parameter - 1e-6))  # E (z - 2)^2
    torch.testing.assert_close(problem.exact(), (up - down) / 2e-6, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("variables", "categories"), [(1, 8), (2, 3)])
def test_reinforce_summed_over_all_draws_is_the_gradient(variables, categories):
    problem = one_hot_problem(variables, categories)
    y, weight = values_of(problem)
    found = estimate(reinforce.build(), problem, len(y), [y])
    torch.testing.assert_close((weight[:, None, None] * found).sum(0), problem.exact(), rtol=1e-12, atol=1e-12)


def test_a_mean_baseline_leaves_the_own_draw_out_and_so_no_bias():
    problem = one_hot_problem()
    y, weight = values_of(problem)
    total = torch.zeros_like(problem.exact())
    for i, j in itertools.product(range(len(y)), repeat=2):
        rows = estimate(reinforce.build(baseline=True), problem, 2, [torch.stack([y[i], y[j]])])
        score = y[i] - problem.parameter.softmax(-1)
        torch.testing.assert_close(rows[0], (problem.f(y[i, None]) - problem.f(y[j, None])) * score)
        total += weight[i] * weight[j] * rows[0]
    torch.testing.assert_close(total, problem.exact(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("draws", [2, 3])
def test_leave_one_out_is_its_formula_and_unbiased(draws):
    problem = one_hot_problem(categories=3)
    y, weight = values_of(problem)
    probabilities = problem.parameter.softmax(-1)
    total = torch.zeros_like(problem.exact())
    for chosen in itertools.product(range(len(y)), repeat=draws):
        found = estimate(LeaveOneOut(draws), problem, 1, [y[i, None] for i in chosen])[0]
        f = [float(problem.f(y[i, None])) for i in chosen]
        terms = [
            (f[a] - sum(f[b] for b in range(draws) if b != a) / (draws - 1)) * (y[chosen[a]] - probabilities)
            for a in range(draws)
        ]
        torch.testing.assert_close(found, sum(terms) / draws, rtol=1e-12, atol=1e-12)
        total += weight[list(chosen)].prod() * found
    torch.testing.assert_close(total, problem.exact(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_gumbel_softmax_gradients_are_those_of_its_naive_form(hard, temperature):
    problem = one_hot_problem(categories=5)
    noise = OneHot(problem.parameter.expand(6, -1, -1)).gumbel(seeded(7))
    found = gumbel_softmax.build(temperature=temperature, hard=hard).gradient(problem, problem.parameter, 6, seeded(7))
    for row in range(6):
        logits = problem.parameter[0].clone().requires_grad_()
        pi = logits.exp() / logits.exp().sum()
        weights = ((pi.log() + noise[row, 0]) / temperature).exp()
        y = weights / weights.sum()
        at = torch.eye(5, dtype=torch.float64)[y.argmax()] if hard else y.detach()
        at = at[None, None].requires_grad_()
        (slope,) = torch.autograd.grad(problem.f(at).sum(), at)
        (wanted,) = torch.autograd.grad(y, logits, slope[0, 0])
        torch.testing.assert_close(found[row, 0], wanted, rtol=1e-9, atol=1e-11)


def test_st_gumbel_evaluates_f_at_the_one_hot_and_the_relaxed_form_does_not():
    problem = one_hot_problem(categories=5)
    hard_values = problem.f(values_of(problem)[0])
    for hard in (False, True):
        q = OneHot(problem.parameter.expand(9, -1, -1))
        value = gumbel_softmax.build(hard=hard).surrogate(problem.f, q, seeded())
        apart = (value[:, None] - hard_values).abs().min(1).values
        assert (apart < 1e-12).all() if hard else (apart > 1e-6).all()


def test_straight_through_passes_the_slope_at_the_draw_through_the_softmax():
    problem = one_hot_problem(categories=5)
    y, _ = values_of(problem)
    found = estimate(straight_through.build(), problem, len(y), [y])
    p = problem.parameter[0].softmax(-1)
    jacobian = torch.diag(p) - torch.outer(p, p)
    at = y.clone().requires_grad_()
    (slope,) = torch.autograd.grad(problem.f(at).sum(), at)
    torch.testing.assert_close(found[:, 0], slope[:, 0] @ jacobian, rtol=1e-12, atol=1e-12)


def test_pathwise_is_the_slope_at_the_draw():
    problem = GaussianProblem(torch.tensor([0.5, -1.0, 3.0], dtype=torch.float64))
    noise = torch.randn(4, 3, dtype=torch.float64, generator=seeded(5))
    found = pathwise.build().gradient(problem, problem.parameter, 4, seeded(5))
    torch.testing.assert_close(found, 2 * (problem.parameter + noise - 2))


def test_a_gumbel_draw_has_its_mean_and_variance_and_the_largest_has_the_probabilities():
    q = OneHot(torch.tensor([[[0.0, 1.0, -1.0]]], dtype=torch.float64).expand(60_000, -1, -1))
    noise = q.gumbel(seeded())
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, rel=0.02)
    share = q.sample(seeded()).mean((0, 1))
    torch.testing.assert_close(share, q.probabilities[0, 0], rtol=0, atol=0.01)


def test_rebars_second_draw_has_the_law_of_the_first_given_its_hard_form():
    q = OneHot(torch.tensor([[[0.0, 1.0, -1.0]]], dtype=torch.float64).expand(60_000, -1, -1))
    first = q.log_probabilities + q.gumbel(seeded(1))
    b = q.harden(first)
    second = rebar.conditional(q, b, seeded(2))
    assert torch.equal(q.harden(second), b)
    for k in range(3):
        own = b[:, 0, k].bool()
        torch.testing.assert_close(first[own].mean(0), second[own].mean(0), rtol=0, atol=0.05)
        torch.testing.assert_close(first[own].std(0), second[own].std(0), rtol=0, atol=0.05)


def test_rebar_is_its_formula():
    problem, temperature, eta = one_hot_problem(categories=5), 0.4, 0.7
    generator = seeded(7)
    noise, again = (OneHot(problem.parameter.expand(6, -1, -1)).gumbel(generator) for _ in range(2))
    found = rebar.build(temperature=temperature, eta=eta).gradient(problem, problem.parameter, 6, seeded(7))
    for row in range(6):
        logits = problem.parameter[0].clone().requires_grad_()
        p = logits.exp() / logits.exp().sum()
        z = p.log() + noise[row, 0]
        k = int(z.argmax())
        top = again[row, 0, k]
        cut = [top if i == k else -(torch.exp(-again[row, 0, i]) / p[i] + torch.exp(-top)).log() for i in range(5)]
        relaxed, given = (problem.f((x / temperature).softmax(0)[None, None])[0] for x in (z, torch.stack(cut)))
        hard = float(problem.f(torch.eye(5, dtype=torch.float64)[k][None, None]))
        loss = (hard - eta * given.detach()) * p[k].log() + eta * (relaxed - given)
        torch.testing.assert_close(found[row, 0], torch.autograd.grad(loss, logits)[0], rtol=1e-9, atol=1e-11)


def test_rebar_is_unbiased_and_says_f_at_the_hard_draw():
    problem = one_hot_problem(categories=4)
    estimator = rebar.build(temperature=0.5, eta=1.0)
    found = torch.cat([estimator.gradient(problem, problem.parameter, 20_000, seeded(s))[:, 0] for s in range(2)])
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - problem.exact()[0]).abs() < 4 * error).all()
    assert float(found.var(0).sum()) < float(
        torch.cat([reinforce.build().gradient(problem, problem.parameter, 20_000, seeded())]).var(0).sum()
    )
    value = estimator.surrogate(problem.f, OneHot(problem.parameter.expand(20, -1, -1)), seeded())
    assert ((value[:, None] - problem.f(values_of(problem)[0])).abs().min(1).values < 1e-12).all()


@pytest.mark.parametrize("dimension", [1, 2])
def test_variances_on_gaussians_are_the_closed_forms(dimension):
    """By quadrature; with f = sum s_j, s_j = (e_j + a)^2: moments of e_i^2 s_i^2, e_i^2 s_i and s_i, e normal."""
    a = -1.5
    problem = GaussianProblem(torch.full((dimension,), 2 + a, dtype=torch.float64))
    points, weights = np.polynomial.hermite_e.hermegauss(8)
    noise = torch.tensor(list(itertools.product(points, repeat=dimension)))
    weight = torch.tensor([math.prod(row) for row in itertools.product(weights, repeat=dimension)])
    weight /= weight.sum()

    class Quadrature(Gaussian):
        def rsample(self, generator=None):
            return self.parameter + noise

    def variance(estimator):
        mean = problem.parameter.expand(len(noise), -1).clone().requires_grad_()
        found = torch.autograd.grad(estimator.surrogate(problem.f, Quadrature(mean)).sum(), mean)[0][:, 0]
        assert float(weight @ found) == pytest.approx(2 * a)
        return float(weight @ found.square()) - 4 * a**2

    rest, rest2 = (dimension - 1) * (1 + a**2), (dimension - 1) * (2 + 4 * a**2)
    second = (15 + 18 * a**2 + a**4) + 2 * rest * (3 + a**2) + (rest2 + rest**2)
    assert variance(reinforce.build()) == pytest.approx(second - 4 * a**2)
    assert variance(pathwise.build()) == pytest.approx(4)
    if dimension == 1:
        assert (second - 4 * a**2) / 4 == pytest.approx((15 + 14 * a**2 + a**4) / 4)


def test_the_networks_bound_is_the_sum_over_its_latents_and_its_kl_is_torchs():
    torch.manual_seed(0)
    network = CategoricalVAE(reinforce.build(), torch.full((6,), 0.5), variables=1, categories=4, hidden=5)
    image = (torch.rand(3, 6) > 0.5).float()
    q = network.posterior(image)
    other = torch.distributions.Categorical(logits=q.parameter[:, 0])
    uniform = torch.distributions.Categorical(logits=torch.zeros(3, 4))
    kl = torch.distributions.kl_divergence(other, uniform)
    likelihood = torch.stack(
        [
            -torch.distributions.Bernoulli(logits=network.decoder(torch.eye(4)[k].expand(3, 4))).log_prob(image).sum(1)
            for k in range(4)
        ],
        dim=1,
    )
    found, found_kl = network.nelbo(image, 800)
    torch.testing.assert_close(found_kl, kl)
    torch.testing.assert_close(found, (other.probs * likelihood).sum(1) + kl, rtol=0, atol=0.04)


def test_the_network_gets_the_estimators_gradient_and_the_exact_one_of_the_kl():
    torch.manual_seed(0)
    network = CategoricalVAE(reinforce.build(), torch.full((6,), 0.5), variables=2, categories=3, hidden=5).double()
    image = (torch.rand(1, 6) > 0.5).double()
    weights = list(network.parameters())
    q = network.posterior(image)
    y = torch.eye(3, dtype=torch.float64)[torch.tensor(list(itertools.product(range(3), repeat=2)))]
    value = network.reconstruction(image, y)
    loss = (q.log_prob(y).exp() * value).sum() + q.kl_to_uniform().sum()
    wanted = torch.autograd.grad(loss, weights)
    posterior, draws = network.posterior, iter(y)
    network.posterior = lambda image: Given(posterior(image).parameter, [next(draws)[None]])
    probabilities = q.log_prob(y).exp().detach()
    total = [torch.zeros_like(w) for w in weights]
    for p in probabilities:
        found = torch.autograd.grad(network({"image": image})["loss"], weights)
        total = [t + p * g for t, g in zip(total, found, strict=True)]
    torch.testing.assert_close(total, list(wanted), rtol=1e-9, atol=1e-10)


def test_the_decoder_starts_at_the_pixels_means():
    mean = torch.tensor([0.2, 0.9, 0.0])
    network = CategoricalVAE(reinforce.build(), mean, variables=1, categories=2, hidden=3)
    start = network.decoder[-1].bias.sigmoid()
    torch.testing.assert_close(start, torch.tensor([0.2, 0.9, 0.01]))  # of what never occurs, one in a hundred


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gumbel_softmax.build(temperature=0.0), "temperature of Gumbel-Softmax must be above 0, not 0"),
        (lambda: rebar.build(temperature=-1.0), "temperature of REBAR's relaxation must be above 0, not -1"),
        (lambda: reinforce.leave_one_out(draws=1), "leave-one-out needs two draws or more, not 1"),
        (
            lambda: reinforce.build(baseline=True).surrogate(
                one_hot_problem().f, OneHot(torch.zeros(1, 1, 4).double())
            ),
            "it needs a batch of two or more",
        ),
    ],
)
def test_what_cannot_be_estimated_is_said_in_a_line(make, message):
    with pytest.raises(UserError, match=message) as found:
        make()
    assert "\n" not in str(found.value)


def test_gaussian_draws_have_no_gradient_where_the_score_is_used():
    mean = torch.zeros(2, 3, requires_grad=True)
    assert not Gaussian(mean).sample(seeded()).requires_grad
    assert Gaussian(mean).rsample(seeded()).requires_grad
