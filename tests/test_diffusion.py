"""Chains, samplers, flows and exact densities of diffusion against forms derived in another way, in float64."""

import math
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_normal

from replications.errors import UserError
from replications.layers.diffusion.chain import Chain, ancestral, bound
from replications.layers.diffusion.flow import divergence, flow, flow_log_prob
from replications.layers.diffusion.implicit import implicit, implicit_encode
from replications.layers.diffusion.langevin import annealed_langevin
from replications.layers.diffusion.predictions import denoised, target_of
from replications.layers.diffusion.schedules import geometric_sigmas, linear_betas, spaced_steps
from replications.layers.diffusion.sde import VarianceExploding, VariancePreserving, reverse_diffusion
from replications.layers.diffusion.states import last
from replications.layers.planar.chain import ChainModel
from replications.layers.planar.denoiser import ExactDenoiser, LearnedDenoiser
from replications.layers.planar.density import DENSITIES, Mixture, planar_density

SPREAD = 0.7  # standard deviation of Gaussian data


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def gaussian_denoise(y, sigma):
    """E[x | x + sigma eps = y] of x ~ N(0, SPREAD^2)."""
    return y * SPREAD**2 / (SPREAD**2 + sigma**2)


def chain_denoise(chain):
    signal, noise = chain.signal.tolist(), chain.noise.tolist()
    return lambda x, i: gaussian_denoise(x / signal[i], noise[i] / signal[i])


# Schedules


def test_betas_of_1000_steps_are_those_of_the_paper():
    betas = linear_betas(1000)
    assert betas[0] == pytest.approx(1e-4) and betas[-1] == pytest.approx(0.02) and len(betas) == 1000


def test_a_shorter_chain_ends_in_as_much_noise():
    short, long = (Chain(linear_betas(steps)).alphas_bar[-1].log().item() for steps in (200, 1000))
    assert short == pytest.approx(long, rel=0.06)


def test_levels_fall_by_one_factor():
    np.testing.assert_allclose(geometric_sigmas(8.0, 0.5, 5), [8, 4, 2, 1, 0.5])


@pytest.mark.parametrize(("count", "trained"), [(1, 10), (3, 10), (10, 10), (7, 100)])
def test_spaced_steps_rise_evenly_to_the_last(count, trained):
    steps = spaced_steps(count, trained)
    assert len(steps) == count and steps[-1] == trained - 1 and steps[0] >= 0
    gaps = np.diff([-1, *steps])
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear_betas(0), "0 steps"),
        (lambda: linear_betas(10), "more than 20 steps"),
        (lambda: spaced_steps(0, 10), "at least 1"),
        (lambda: spaced_steps(11, 10), "at most 10"),
        (lambda: geometric_sigmas(0.1, 1.0, 3), "falling"),
        (lambda: Chain(torch.tensor([0.5, 1.5])), "between 0 and 1"),
        (lambda: VarianceExploding(2.0, 1.0), "that rise"),
        (lambda: VariancePreserving().step(1.0, 0.5), "more steps"),
        (lambda: last(flow(gaussian_denoise, draw(1, 2), 1.0, 0.1, 0)), "at least 1"),
        (lambda: last(reverse_diffusion(VariancePreserving(), None, draw(1, 2), 0)), "at least 1"),
        (lambda: last(annealed_langevin(None, draw(1, 2), torch.ones(1), 0, 0.1)), "at least 1"),
    ],
)
def test_what_cannot_be_is_told(call, message):
    with pytest.raises(UserError, match=message):
        call()


# Predictions


@pytest.mark.parametrize("prediction", ["noise", "data", "velocity"])
def test_a_perfect_prediction_gives_the_data_back(prediction):
    x0, eps, signal = draw(5, 2), draw(5, 2).flip(0), 0.6
    target = target_of(prediction, x0, eps, signal, 0.8)
    torch.testing.assert_close(denoised(prediction, target, signal * x0 + 0.8 * eps, signal, 0.8), x0)


# The chain


def test_posteriors_are_those_of_bayes_rule():
    """q(x_{t-1} | x_t, x_0) as the product of the Gaussians q(x_t | x_{t-1}) and q(x_{t-1} | x_0)."""
    chain = Chain(torch.tensor([0.1, 0.3, 0.5]))
    x0, xt = 0.4, -1.1
    for i in (1, 2):
        beta, before = chain.betas[i].item(), chain.alphas_bar[i - 1].item()
        precision = (1 - beta) / beta + 1 / (1 - before)
        mean = (math.sqrt(1 - beta) * xt / beta + math.sqrt(before) * x0 / (1 - before)) / precision
        assert chain.posterior_variance[i].item() == pytest.approx(1 / precision)
        assert (chain.x0_weight[i] * x0 + chain.x_weight[i] * xt).item() == pytest.approx(mean)


def test_the_chain_of_a_point_ends_in_the_point():
    point = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    chain = Chain(linear_betas(50))
    states = list(ancestral(chain, lambda x, i: point.expand_as(x), draw(7, 2)))
    assert len(states) == 51
    torch.testing.assert_close(states[-1], point.expand(7, 2))


@pytest.mark.parametrize("kind", ["large", "small"])
def test_ancestral_samples_of_gaussian_data_have_the_variance_of_the_linear_chain(kind):
    """Each step is linear in x: its variance is followed exactly, and met by samples."""
    chain = Chain(linear_betas(60))
    denoise, kinds = chain_denoise(chain), chain.variance(kind)
    variance = 1.0
    for i in reversed(range(chain.steps)):
        factor = chain.x0_weight[i] * denoise(torch.ones(1, dtype=torch.float64), i) + chain.x_weight[i]
        variance = factor.item() ** 2 * variance + (kinds[i].item() if i else 0.0)
    torch.manual_seed(1)
    samples = last(ancestral(chain, denoise, draw(100_000, 2), kind))
    assert samples.var().item() == pytest.approx(variance, rel=0.02)


def test_the_bound_is_the_sum_of_kl_divergences():
    """Against torch's own divergences and densities, at the same noise."""
    chain, x0 = Chain(torch.tensor([0.1, 0.2, 0.4])), draw(6, 2)
    normal = partial(torch.distributions.Normal)
    for kind in ("large", "small"):
        variance = chain.variance(kind)
        torch.manual_seed(2)
        found = bound(chain, lambda x, i: 0.5 * x, x0, kind)
        torch.manual_seed(2)
        prior = normal(chain.signal[-1] * x0, chain.noise[-1])
        total = -torch.distributions.kl_divergence(prior, normal(0.0, 1.0)).sum(1)
        for i in range(3):
            x = chain.signal[i] * x0 + chain.noise[i] * torch.randn_like(x0)
            reverse = normal(chain.x0_weight[i] * 0.5 * x + chain.x_weight[i] * x, variance[i].sqrt())
            if i:
                true = normal(chain.x0_weight[i] * x0 + chain.x_weight[i] * x, chain.posterior_variance[i].sqrt())
                total = total - torch.distributions.kl_divergence(true, reverse).sum(1)
            else:
                total = total + reverse.log_prob(x0).sum(1)
        torch.testing.assert_close(found, total)


def test_the_bound_stays_below_the_log_density_and_nears_it():
    x0 = SPREAD * draw(20_000, 2)
    true = torch.distributions.Normal(0.0, SPREAD).log_prob(x0).sum(1).mean().item()
    gaps = []
    for steps in (50, 400):
        chain = Chain(linear_betas(steps))
        torch.manual_seed(3)
        gaps.append(true - bound(chain, chain_denoise(chain), x0, "small").mean().item())
    assert gaps[0] > gaps[1] > 0 and gaps[1] < 0.35 * gaps[0]


@pytest.mark.parametrize("prediction", ["noise", "data", "velocity"])
def test_the_bounds_weights_make_the_loss_the_bound_up_to_one_factor(prediction):
    """The weighted error of what is predicted is the weighted error of x_0, at each level."""
    model = ChainModel(planar_density("eight"), LearnedDenoiser(8, 1, prediction), 30, 4, "bound").double()
    x0 = draw(4, 2)
    ratios = []
    for i in (0, 10, 29):
        sigma = model.sigma[i].expand(4)
        torch.manual_seed(4)
        errors = model.denoiser.errors(x0, sigma) * model.weight[i]
        torch.manual_seed(4)
        y = x0 + sigma[:, None] * torch.randn_like(x0)
        missed = (model.denoiser(y, sigma) - x0).square().mean(1) * model.chain.bound_weights()[i]
        ratios.append((errors / missed).detach())
    torch.testing.assert_close(ratios[0], ratios[1], rtol=1e-4, atol=0)
    torch.testing.assert_close(ratios[0], ratios[2], rtol=1e-4, atol=0)


# Sampling in few steps


def test_without_noise_and_of_a_point_any_number_of_steps_ends_in_the_point():
    point = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    chain = Chain(linear_betas(50))
    for steps in (1, 3, 50):
        torch.testing.assert_close(
            last(implicit(chain, lambda x, i: point.expand_as(x), draw(3, 2), steps)), point.expand(3, 2)
        )


@pytest.mark.parametrize(("eta", "larger"), [(0.0, False), (0.5, False), (1.0, False), (0.0, True)])
def test_a_step_is_equation_12(eta, larger):
    chain, x = Chain(linear_betas(40)), draw(5, 2)
    high, low = spaced_steps(2, 40)[::-1]
    now, then = chain.alphas_bar[high], chain.alphas_bar[low]
    x0 = 0.3 * x
    eps = (x - now.sqrt() * x0) / (1 - now).sqrt()
    ancestral_sigma = ((1 - then) / (1 - now)).sqrt() * (1 - now / then).sqrt()
    sigma = ancestral_sigma if larger else eta * ancestral_sigma
    torch.manual_seed(5)
    states = list(implicit(chain, lambda x, i: 0.3 * x, x, 2, eta, larger))
    torch.manual_seed(5)
    noise = torch.randn_like(x) if sigma else 0.0
    deviation = (1 - now / then).sqrt() if larger else sigma
    expected = then.sqrt() * x0 + (1 - then - sigma**2).sqrt() * eps + deviation * noise
    torch.testing.assert_close(states[1], expected)


def test_coding_and_decoding_meet_as_steps_grow():
    chain = Chain(linear_betas(400))
    x, errors = SPREAD * draw(50, 2), []
    for steps in (10, 100, 400):
        code = last(implicit_encode(chain, chain_denoise(chain), x, steps))
        errors.append((last(implicit(chain, chain_denoise(chain), code, steps)) - x).abs().max().item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


# The flow


def test_the_flow_of_gaussian_data_scales_by_the_ratio_of_deviations():
    y = draw(4, 2)
    high, low = 20.0, 0.05
    scale = math.sqrt((SPREAD**2 + low**2) / (SPREAD**2 + high**2))
    torch.testing.assert_close(last(flow(gaussian_denoise, y, high, low, 400)), scale * y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("probes", [0, 3])
def test_the_flows_likelihood_of_gaussian_data_is_exact(probes):
    x, low, high = draw(6, 2), 0.05, 20.0
    prior = math.sqrt(SPREAD**2 + high**2)
    true = torch.distributions.Normal(0.0, math.sqrt(SPREAD**2 + low**2)).log_prob(x).sum(1)
    found = flow_log_prob(gaussian_denoise, x, low, high, 300, prior, probes)
    torch.testing.assert_close(found, true, rtol=1e-3, atol=1e-3)


def test_the_divergence_is_the_trace_of_the_jacobian_and_the_mean_over_all_signs():
    matrix = draw(3, 3)

    def field(y):
        return torch.tanh(y @ matrix.T)

    y = draw(1, 3).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda v: field(v[None])[0], y[0].detach())
    found = divergence(field(y), y)
    torch.testing.assert_close(found, jacobian.trace()[None])
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    torch.testing.assert_close(torch.einsum("si,ij,sj->s", signs, jacobian, signs).mean()[None], found)


# Continuous time


@pytest.mark.parametrize("sde", [VariancePreserving(), VarianceExploding(0.01, 10.0)])
def test_forward_steps_compose_to_the_marginal(sde):
    times = torch.linspace(1e-3, 1, 4001, dtype=torch.float64).tolist()
    signal, noise = (value.item() for value in sde.marginal(torch.tensor(times[0], dtype=torch.float64)))
    variance = noise**2
    for then, t in pairwise(times):
        factor, deviation = sde.step(t, then)
        signal, variance = factor * signal, factor**2 * variance + deviation**2
    end_signal, end_noise = (value.item() for value in sde.marginal(torch.tensor(1.0, dtype=torch.float64)))
    assert signal == pytest.approx(end_signal, rel=1e-2)
    assert math.sqrt(variance) == pytest.approx(end_noise, rel=1e-2)


@pytest.mark.parametrize("corrector_steps", [0, 1])
@pytest.mark.parametrize("sde", [VariancePreserving(), VarianceExploding(0.01, 10.0)])
def test_the_reverse_of_gaussian_data_has_its_variance(sde, corrector_steps):
    def score(x, t):
        signal, noise = (value.item() for value in sde.marginal(torch.tensor(t, dtype=torch.float64)))
        return -x / (signal**2 * SPREAD**2 + noise**2)

    torch.manual_seed(6)
    start = sde.prior * draw(8_000, 2)
    samples = last(reverse_diffusion(sde, score, start, 300, corrector_steps))
    assert samples.std().item() == pytest.approx(SPREAD, rel=0.03)


def test_langevin_dynamics_steps_by_the_size_of_its_level():
    x = draw(3, 2)
    torch.manual_seed(7)
    states = list(annealed_langevin(lambda y, sigma: -y / sigma, x, torch.tensor([2.0, 1.0]), 1, 0.1))
    torch.manual_seed(7)
    first = x - 0.5 * 0.4 * x / 2 + math.sqrt(0.4) * torch.randn_like(x)
    second = first - 0.5 * 0.1 * first + math.sqrt(0.1) * torch.randn_like(x)
    assert len(states) == 3
    torch.testing.assert_close(states[-1], second)


# Densities in the plane


@pytest.mark.parametrize("name", ["eight", "unequal"])
@pytest.mark.parametrize("sigma", [0.0, 0.6])
def test_a_mixtures_density_is_scipys(name, sigma):
    density, y = planar_density(name), 1.5 * draw(40, 2)
    cov = density.deviation**2 + sigma**2
    expected = sum(
        weight * multivariate_normal(centre, cov).pdf(y.numpy())
        for weight, centre in zip(density.weights.tolist(), density.centres.numpy(), strict=True)
    )
    np.testing.assert_allclose(density.log_prob(y, sigma).exp(), expected, rtol=1e-10)


@pytest.mark.parametrize("sigma", [0.0, 0.6])
def test_a_rings_density_is_the_integral_over_its_circle(sigma):
    density = planar_density("ring")
    variance = density.deviation**2 + sigma**2
    for x, y in ((1.4, 0.2), (0.1, -0.3), (-1.2, 1.2)):
        expected = quad(
            lambda a, x=x, y=y: (
                multivariate_normal((1.5 * math.cos(a), 1.5 * math.sin(a)), variance).pdf((x, y)) / (2 * math.pi)
            ),
            0,
            2 * math.pi,
            points=[math.atan2(y, x) % (2 * math.pi)],
            limit=200,
            epsabs=0,
        )[0]
        found = density.log_prob(torch.tensor([[x, y]], dtype=torch.float64), sigma).exp().item()
        assert found == pytest.approx(expected, rel=1e-4, abs=0)


@pytest.mark.parametrize("name", list(DENSITIES))
def test_the_score_is_the_gradient_and_the_denoiser_follows_from_it(name):
    density = planar_density(name)
    for sigma in (0.05, 0.8):
        y = (1.5 * draw(20, 2)).requires_grad_()
        (gradient,) = torch.autograd.grad(density.log_prob(y, sigma).sum(), y)
        torch.testing.assert_close(density.score(y, sigma), gradient)
        torch.testing.assert_close(density.denoise(y, sigma), y + sigma**2 * gradient)
        torch.testing.assert_close(ExactDenoiser(density).score(y, sigma), gradient)


def test_the_denoiser_is_the_posterior_mean():
    """By Bayes' rule over the modes of a mixture: each mode's posterior mean, weighted by its responsibility."""
    density, sigma = planar_density("unequal"), 0.5
    y = torch.tensor([[0.1, -0.2]], dtype=torch.float64)
    cov = density.deviation**2 + sigma**2
    parts = [
        (w * multivariate_normal(c, cov).pdf(y[0].numpy()), c + (y[0].numpy() - c) * density.deviation**2 / cov)
        for w, c in zip(density.weights.tolist(), density.centres.numpy(), strict=True)
    ]
    expected = sum(p * m for p, m in parts) / sum(p for p, _ in parts)
    np.testing.assert_allclose(density.denoise(y, sigma)[0], expected, rtol=1e-10)


@pytest.mark.parametrize("name", list(DENSITIES))
def test_samples_have_the_entropy_of_the_density(name):
    """Mean log-density of samples against its integral on a grid."""
    density = planar_density(name)
    side = torch.linspace(-3, 3, 601, dtype=torch.float64)
    log_prob = density.log_prob(torch.cartesian_prod(side, side))
    mass = log_prob.exp() * 0.01**2
    assert mass.sum().item() == pytest.approx(1, abs=1e-6)
    points = density.sample(40_000, torch.Generator().manual_seed(0))
    assert points.dtype == torch.float32
    found = density.log_prob(points).mean().item()
    assert found == pytest.approx((mass * log_prob).sum().item(), abs=0.02)


def test_a_learned_denoiser_works_in_variance_preserving_form():
    """Scaled by its signal, y and its noise level describe the same x: the prediction is of that x."""
    denoiser = LearnedDenoiser(8, 1, "noise").double()
    y, sigma = draw(3, 2), 0.75
    signal, noise = 0.8, 0.6
    eps = denoiser.output(signal * y, torch.full((3, 1), math.log(sigma), dtype=torch.float64))
    torch.testing.assert_close(denoiser(y, sigma), (signal * y - noise * eps) / signal)
    assert denoiser.passes == 2


def test_a_mixture_of_one_mode_is_denoised_linearly():
    one = Mixture("one", torch.zeros(1, 2), torch.ones(1), SPREAD)
    y = draw(5, 2)
    torch.testing.assert_close(one.denoise(y, 0.4), gaussian_denoise(y, 0.4))
