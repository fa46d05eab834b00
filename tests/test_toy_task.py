"""The toy density task: its metrics, its truth, its samplers by paper, its pictures, and what it refuses."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import entropy, wasserstein_distance

from replications.errors import UserError
from replications.layers.diffusion.chain import ancestral
from replications.layers.diffusion.states import last
from replications.layers.planar.density import planar_density
from replications.papers.ddim import model as ddim
from replications.papers.ddpm import model as ddpm
from replications.papers.ncsn import model as ncsn
from replications.papers.score_sde import model as score_sde
from replications.tasks.base import Look, find_task
from replications.tasks.toy_density import pictures
from replications.tasks.toy_density.rescore import CELLS, cell_divergence, judge, rescore, sliced_wasserstein
from replications.tasks.toy_density.truth import category_of, truth_of

TASK = find_task("toy_density")
EIGHT = planar_density("eight")


def points(count=500, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2))


# Metrics


def test_sliced_wasserstein_is_the_mean_of_scipys_over_directions():
    one, other = points(), points(seed=1) + np.array([0.5, 0])
    angles = math.pi * np.arange(64) / 64
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    expected = np.mean([wasserstein_distance(one @ d, other @ d) for d in directions])
    assert sliced_wasserstein(one, other) == pytest.approx(expected)
    assert sliced_wasserstein(one, one[::-1]) == 0


def test_cell_divergence_is_scipys_entropy_of_shares():
    samples = points(2000)
    cells = np.full((CELLS, CELLS), 0.9 / CELLS**2)
    counts = np.zeros((CELLS, CELLS))
    for x, y in samples:
        i, j = (int((v + 2) / (4 / CELLS)) if abs(v) < 2 else -1 for v in (x, y))
        if i >= 0 and j >= 0:
            counts[i, j] += 1
    shares = np.append(counts.ravel(), 2000 - counts.sum()) / 2000
    expected = entropy(shares, np.append(cells.ravel(), 0.1))
    assert cell_divergence(samples, cells, 2.0) == pytest.approx(expected)


def test_samples_are_judged_by_their_modes():
    truth = truth_of("unequal", planar_density("unequal"), 100)
    light, heavy = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    samples = np.stack([light] * 50 + [heavy] * 45 + [heavy + np.array([0.7, 0])] * 5)
    found = judge(samples, truth)
    assert found["mode_error"] == pytest.approx(0.3)  # 1/2 against 1/5
    assert found["bad_share"] == pytest.approx(5)


def test_on_a_ring_the_distance_is_from_the_circle():
    truth = truth_of("ring", planar_density("ring"), 100)
    angle = np.linspace(0, 2 * math.pi, 100, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    assert judge(1.5 * circle, truth)["bad_share"] == 0
    assert judge(1.15 * circle, truth)["bad_share"] == 100
    assert judge(1.5 * circle, truth)["mode_error"] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("name", ["eight", "unequal", "ring"])
def test_the_truth_is_that_of_the_density(name):
    density = planar_density(name)
    truth = truth_of(name, density, 4000)
    assert truth["cells"].sum() == pytest.approx(1, abs=1e-3)
    many = density.sample(200_000, torch.Generator().manual_seed(1)).numpy()
    edges = np.linspace(-float(truth["reach"]), float(truth["reach"]), CELLS + 1)
    shares = np.histogram2d(*many.T, bins=(edges, edges))[0] / len(many)
    np.testing.assert_allclose(truth["cells"], shares, atol=2e-3)
    floor = judge(truth["samples_floor"], truth)
    assert floor["bad_share"] < 2 and floor["mode_error"] < 0.03 and floor["kl"] < 0.1
    assert "4,000 samples" in category_of(density, truth) and f"{floor['sliced_wasserstein']:.3f}" in category_of(
        density, truth
    )


def test_log_densities_give_bound_likelihood_and_gap():
    truth = truth_of("eight", EIGHT, 50)
    arrays = truth | {
        "samples": truth["real"],
        "log_prob": np.array([-1.0, -2.0]),
        "log_prob_elbo": np.array([-2.0, -4.0]),
        "log_prob_ode": np.array([-1.5, -2.0]),
    }
    found = rescore(arrays)
    assert found["true_log_prob"] == -1.5 and found["elbo"] == -3 and found["ode_log_prob"] == -1.75
    assert found["flow_gap"] == 0.25 and found["sliced_wasserstein"] == 0 < found["sliced_wasserstein_floor"]


def test_every_metric_of_a_sampler_has_its_place():
    for name in ("kl_eta0_5", "bad_share_unclipped", "sliced_wasserstein_larger_all", "evaluations_ode"):
        assert TASK.metrics[name].title


# Papers


def test_ddpm_clips_to_the_extent_or_not():
    model = ddpm.build(EIGHT, 30, 4, 8, 1)
    x = torch.full((3, 2), 50.0)
    assert model.denoise(True)(x, 5).abs().max() <= EIGHT.extent < model.denoise(False)(x, 5).abs().max()
    assert list(model.samplers()) == ["clipped", "unclipped"]


def test_the_closed_form_is_that_of_the_chain_and_a_wrong_one_is_seen():
    model = ddpm.build(EIGHT, 30, 4, 8, 1)
    x = torch.zeros(1, 2)
    assert model.measure(x)["forward_error"] < 1e-14
    model.chain.signal = model.chain.signal * 1.001
    assert model.measure(x)["forward_error"] > 1e-4


@pytest.mark.parametrize(("options", "message"), [({"loss": "best"}, "loss 'best'"), ({"timesteps": 0}, "at least 1")])
def test_ddpm_refuses(options, message):
    with pytest.raises(UserError, match=message):
        ddpm.build(EIGHT, **({"timesteps": 30, "ode_steps": 4, "width": 8, "depth": 1} | options))


def test_ddim_has_all_its_samplers_once():
    names = list(ddim.build(EIGHT, 100, 4, 8, 1).samplers())
    assert names[0] == "eta0_10" and len(names) == len(set(names)) == 15
    assert {"eta1_all", "larger_5", "eta0_50"} < set(names)


def test_ddims_identities_hold_and_break_where_they_should(monkeypatch):
    model = ddim.exact(EIGHT, 100, 4)
    x = EIGHT.sample(20, torch.Generator().manual_seed(0))
    found = model.measure(x)
    assert found["posterior_error"] < 1e-10 and found["euler_error"] < 1e-10
    assert found["same_noise_eta0_10"] < found["same_noise_eta1_10"]
    monkeypatch.setattr(ddim, "ancestral", lambda chain, denoise, x, kind: ancestral(chain, denoise, x, "large"))
    assert model.measure(x)["posterior_error"] > 1e-3


def test_score_sde_reads_its_score_from_the_denoiser():
    for name in ("preserving", "exploding"):
        model = score_sde.exact(EIGHT, sde=name, sde_steps=4, ode_steps=4)
        t, x = 0.4, points(5)
        signal, noise = (v.item() for v in model.sde.marginal(torch.tensor(t, dtype=torch.float64)))
        x = torch.from_numpy(x).requires_grad_()
        log_prob = EIGHT.log_prob(x / signal, noise / signal)
        (expected,) = torch.autograd.grad(log_prob.sum(), x)
        torch.testing.assert_close(model.score(x.detach(), t), expected)


def test_score_sdes_samplers_take_equal_evaluations():
    model = score_sde.exact(EIGHT, sde="exploding", sde_steps=8, ode_steps=4)
    for sampler in model.samplers().values():
        before = model.denoiser.passes
        last(sampler.states(torch.zeros(1, 2)))
        assert model.denoiser.passes - before == 8


@pytest.mark.parametrize(("options", "message"), [({"sde": "sub"}, "sde 'sub'"), ({"sde_steps": 1}, "at least 2")])
def test_score_sde_refuses(options, message):
    with pytest.raises(UserError, match=message):
        score_sde.exact(EIGHT, **({"sde": "exploding", "sde_steps": 4, "ode_steps": 4} | options))


def test_ncsns_objective_is_the_error_of_the_noise():
    density = planar_density("unequal")
    model = ncsn.exact(density)
    assert model.measure(density.sample(50, torch.Generator().manual_seed(0)).double())["objective_error"] < 1e-8


# Pictures


class Album:
    tier, width, addresses = "mini", 7.4, ("ddim/ddim", "ncsn/exact", "missing")

    def look(self, address):
        return Look("#0072B2", "o", "solid")

    def runs(self, address):
        if address == "missing":
            return {}
        metrics = [{"kl": 0.1 * (1 + 3 * seed), "kl_eta1_all": 0.4, "bad_share": 1.0} for seed in range(2)]
        if address == "ncsn/exact":
            metrics = [{"kl": 0.1, "kl_plain": 0.4}] * 2
        spec = SimpleNamespace(options={"timesteps": 100})
        return {seed: SimpleNamespace(metrics=m, spec=spec) for seed, m in enumerate(metrics)}

    def arrays(self, address, seed):
        found = truth_of("eight", EIGHT, 50) | {"samples": points(50), "strip": np.stack([points(50)] * 6)}
        return found | ({"path": np.stack([points(4)] * 5)} if address == "ddim/ddim" else {})


def test_divergence_by_steps_is_the_geometric_mean_of_seeds():
    assert pictures.by_steps(Album(), "ddim/ddim") == {
        "eta0": {10: pytest.approx(0.2)},
        "eta1": {100: pytest.approx(0.4)},
    }
    assert pictures.by_steps(Album(), "ncsn/exact") == {}


def test_each_picture_is_drawn(tmp_path):
    found = list(pictures.draw(Album()))
    assert [picture.name for picture in found] == ["samples", "paths", "states", "steps"]
    for picture in found:
        picture.figure.savefig(tmp_path / f"{picture.name}.png")
