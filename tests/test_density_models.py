"""Densities against enumeration and naive float64 forms; gradients against autograd of the naive ones."""

import itertools
import math

import numpy as np
import pytest
import torch

from replications.errors import UserError
from replications.layers.density.bounds import SIZES, nested_bounds
from replications.layers.density.enumeration import all_images, mass_errors
from replications.papers.fvsbn.model import Independent
from replications.papers.fvsbn.model import build as build_fvsbn
from replications.papers.iwae.model import build as build_iwae
from replications.papers.made.model import build as build_made
from replications.papers.nade import recursion
from replications.papers.nade.model import build as build_nade
from replications.papers.nade.orderless import build as build_orderless
from replications.papers.vae.gradients import estimators, gradient_variances
from replications.papers.vae.model import build as build_vae

SHAPE, PIXELS = (2, 4), 8
EXACT = {
    "fvsbn": lambda: build_fvsbn(SHAPE),
    "nade": lambda: build_nade(SHAPE, nade_hidden=5),
    "orderless": lambda: build_orderless(SHAPE, hidden=6, orders=3),
    "made": lambda: build_made(SHAPE, 0, hidden=7),
    "direct": lambda: build_made(SHAPE, 0, hidden=7, direct=True, natural=False),
    "orders": lambda: build_made(SHAPE, 0, hidden=9, layers=2, orders=4),
    "joint": lambda: build_made(SHAPE, 3, hidden=7, joint=True),
}


def random_weights(density, seed=0, scale=1.0):
    torch.manual_seed(seed)
    density = density.double().eval()
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.normal_().mul_(scale)
    return density


@pytest.mark.parametrize("name", EXACT)
def test_probabilities_of_all_images_add_up_to_one(name):
    torch.manual_seed(3)
    density = EXACT[name]()
    errors = mass_errors(density, PIXELS)
    assert errors["mass_error"] < 1e-12
    density.log_prob(all_images(PIXELS))  # the weights that were drawn are there: probabilities are far from uniform
    assert density.log_prob(all_images(PIXELS)).max() > -PIXELS * math.log(2) + 1


def test_averaged_logits_are_no_density():
    torch.manual_seed(3)
    errors = mass_errors(EXACT["orders"](), PIXELS)
    assert errors["pseudo_mass_error"] > 1e-3


@pytest.mark.parametrize("name", [name for name in EXACT if name != "joint"])
def test_samples_have_the_density_s_frequencies(name):
    density = random_weights(EXACT[name]())
    images = all_images(PIXELS)
    torch.manual_seed(1)
    draws = 300 if name == "orderless" else 4000
    parts = [density.sample(draws // 50) for _ in range(50)]
    places = (torch.cat(parts).double() @ 2.0 ** torch.arange(PIXELS).double()).long()
    seen = torch.bincount(places, minlength=len(images)).double() / len(places)
    # The entropy's estimate: the mean log p of samples is that under p itself, within five standard errors.
    log_p = density.log_prob(images).detach()
    p = log_p.exp()
    mean, std = (p * log_p).sum(), (p * log_p**2).sum() - (p * log_p).sum() ** 2
    error = (std / (50 if name in ("orders", "orderless") else len(places))).sqrt()
    assert abs((seen * log_p).sum() - mean) < 5 * error
    assert (seen[p < 1e-9] == 0).all()


def test_fvsbn_is_a_logistic_regression_of_each_pixel():
    density = random_weights(EXACT["fvsbn"]())
    weight, bias = (value.detach().numpy() for value in (density.linear.weight, density.linear.bias))
    image = all_images(PIXELS)[[5, 77, 200]].numpy()
    expected = np.zeros(3)
    for n, x in enumerate(image):
        for i in range(PIXELS):
            a = bias[i] + sum(weight[i, j] * x[j] for j in range(i))
            expected[n] += np.log(1 / (1 + np.exp(-a))) if x[i] else np.log(1 / (1 + np.exp(a)))
    assert density.log_prob(torch.from_numpy(image)).detach().numpy() == pytest.approx(expected, abs=1e-12)


def test_independent_pixels_are_laplace_s_frequencies():
    density = Independent(3)
    density.fit(torch.tensor([[1.0, 0, 0], [1, 1, 0]]))
    # (2 + 1) / 4, (1 + 1) / 4, (0 + 1) / 4
    expected = math.log(3 / 4) + math.log(1 / 2) + math.log(3 / 4)
    assert density.log_prob(torch.tensor([[1.0, 0, 0]])).item() == pytest.approx(expected, rel=1e-6)


def test_nade_against_a_loop():
    density = random_weights(EXACT["nade"]())
    w, v, b, c = (value.detach().numpy() for value in (density.w, density.v, density.b, density.c))
    x = all_images(PIXELS)[173].numpy()
    expected = 0.0
    for i in range(PIXELS):
        a = c + sum((w[j] * x[j] for j in range(i)), np.zeros_like(c))
        p = 1 / (1 + np.exp(-(b[i] + v[i] @ (1 / (1 + np.exp(-a))))))
        expected += np.log(p if x[i] else 1 - p)
    assert density.log_prob(torch.from_numpy(x)[None]).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("pixels", [1, 15, 16, 17, 40])
def test_nade_s_blocks_are_the_naive_form(pixels):
    torch.manual_seed(pixels)
    image = (torch.rand(6, pixels) > 0.5).double()
    weights = [torch.randn(*size).double().requires_grad_() for size in ((pixels, 5), (5,), (pixels, 5), (pixels,))]
    naive, block = (form(image, *weights) for form in (recursion.naive_logits, recursion.block_logits))
    torch.testing.assert_close(block, naive, rtol=0, atol=1e-12)
    grad = torch.randn_like(naive)
    for one, other in zip(
        torch.autograd.grad(naive, weights, grad), torch.autograd.grad(block, weights, grad), strict=True
    ):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12)


def test_the_orderless_loss_is_the_mean_nll_over_all_orders():
    density = random_weights(build_orderless((1, 3), hidden=4, orders=1))
    image = torch.tensor([[1.0, 0, 1]]).double()
    orders = [torch.tensor(order) for order in itertools.permutations(range(3))]
    expected = -torch.stack([density.log_prob_at(image, order) for order in orders]).mean().item()
    torch.manual_seed(0)
    found = density({"image": image.expand(20000, -1)})["loss"].item()
    assert found == pytest.approx(expected, rel=0.03)


def test_the_orderless_network_knows_what_it_sees():
    """A pixel that is 0 and one that is not seen differ; one that is not seen has no say."""
    density = random_weights(EXACT["orderless"]())
    image, seen = all_images(PIXELS)[[0, 1]], torch.ones(PIXELS).double()
    unseen = seen.clone()
    unseen[0] = 0
    assert (density.logits(image, seen)[0] - density.logits(image, unseen)[0]).abs().max() > 1e-3
    assert torch.equal(*density.logits(image, unseen))


def test_nade_has_the_paper_s_number_of_weights():
    density = build_nade((28, 28), nade_hidden=500)
    assert sum(p.numel() for p in density.parameters()) == 2 * 784 * 500 + 784 + 500


@pytest.mark.parametrize("name", ["fvsbn", "nade", "made", "direct", "orders", "joint"])
def test_a_logit_depends_on_the_pixels_before_it_alone(name):
    """By brute force: each pixel is turned over, and the logits that change are those of pixels after it."""
    density = random_weights(EXACT[name]())
    for order in range(getattr(density, "orders", 1)):
        given = (order,) if name in ("made", "direct", "orders", "joint") else ()
        places = density.degree_0[order].tolist() if given else list(range(PIXELS))
        seen = torch.zeros(PIXELS, PIXELS, dtype=torch.bool)
        for image in all_images(PIXELS)[::7]:
            for j in range(PIXELS):
                other = image.clone()
                other[j] = 1 - other[j]
                both = density.logits(torch.stack([image, other]), *given)
                seen[:, j] |= (both[0] - both[1]).abs() > 1e-12
        allowed = torch.tensor([[places[j] < places[i] for j in range(PIXELS)] for i in range(PIXELS)])
        assert not (seen & ~allowed).any()
        if name in ("fvsbn", "nade", "direct"):
            assert (seen == allowed).all()


def test_made_s_orders_and_masks_are_algorithm_1():
    torch.manual_seed(0)
    density = build_made((4, 4), 0, hidden=50, layers=2, orders=3)
    assert density.degree_0[0].tolist() == list(range(1, 17))
    for order in range(3):
        assert sorted(density.degree_0[order].tolist()) == list(range(1, 17))
        for layer in (1, 2):
            degrees = getattr(density, f"degree_{layer}")[order]
            assert density.degree_1[order].min() >= 1 and degrees.max() <= 15
        assert density.degree_2[order].min() >= density.degree_1[order].min()
        product = density._mask(2, 0, order).double() @ density._mask(1, 2, order).double()
        product = product @ density._mask(0, 1, order).double()  # paths from input j to output i
        places = density.degree_0[order]
        assert (product[places[:, None] <= places[None]] == 0).all()
    density.on_step(4, 10)
    assert density.current == 1


def test_made_averages_probabilities():
    density = random_weights(EXACT["orders"]())
    image = all_images(PIXELS)[[3, 99]]
    each = []
    for order in range(4):
        p = density.logits(image, order).sigmoid()
        each.append(torch.where(image == 1, p, 1 - p).prod(1))
    torch.testing.assert_close(density.log_prob(image), torch.stack(each).mean(0).log())


def test_the_joint_model_s_image_is_the_sum_over_labels():
    density = random_weights(EXACT["joint"]())
    image, label = all_images(PIXELS)[:5], torch.tensor([0, 2, 1, 1, 0])
    joint = density.label_log_prob(image)
    assert joint.exp().sum(1).log().tolist() == pytest.approx(density.log_prob(image).tolist(), abs=1e-12)
    loss = density({"image": image, "label": label})["loss"].item()
    assert loss == pytest.approx(-joint[torch.arange(5), label].mean().item(), abs=1e-12)


def test_nested_bounds_against_a_loop_and_never_fall():
    log_weight = 3 * torch.randn(4, 500, dtype=torch.float64)
    found = nested_bounds(log_weight, SIZES)
    for n, k in itertools.product(range(4), SIZES):
        groups = log_weight[n].numpy().reshape(-1, k)
        assert found[n, SIZES.index(k)].item() == pytest.approx(np.log(np.exp(groups).mean(1)).mean(), abs=1e-10)
    assert (found.diff(dim=1) >= 0).all()


def enumerated_vae(beta=1.0):
    """A VAE of two latents whose weights make it depend on them."""
    return random_weights(build_vae(SHAPE, hidden=4, latents=2, beta=beta), scale=0.7)


def test_the_grid_adds_up_to_one_over_all_images_and_bounds_lie_below():
    density = enumerated_vae()
    images = all_images(PIXELS)
    exact = density.grid_log_prob(images)
    assert exact.exp().sum().item() == pytest.approx(1, abs=1e-6)
    torch.manual_seed(0)
    bounds = nested_bounds(density.log_weights(images[:40], 5000), (1, 50, 5000)).mean(0)
    assert bounds[0] < bounds[1] < bounds[2] < exact[:40].mean() + 0.02
    assert bounds[2].item() == pytest.approx(exact[:40].mean().item(), abs=0.1)


def test_the_vae_s_loss_is_the_negative_elbo():
    density, image = enumerated_vae(), all_images(PIXELS)[:16]
    torch.manual_seed(0)
    with torch.no_grad():
        loss = np.mean([density({"image": image})["loss"].item() for _ in range(300)])
        weights = density.log_weights(image, 5000)
    assert loss == pytest.approx(-weights.mean().item(), abs=0.2)


def test_beta_weighs_the_kl_alone():
    image = all_images(PIXELS)[:4]
    losses = {}
    for beta in (1.0, 4.0):
        torch.manual_seed(5)
        losses[beta] = enumerated_vae(beta)({"image": image})
    assert losses[4.0]["reconstruction"].item() == pytest.approx(losses[1.0]["reconstruction"].item())
    assert (losses[4.0]["loss"] - losses[1.0]["loss"]).item() == pytest.approx(3 * losses[1.0]["kl"].item())


@pytest.mark.parametrize("inside", [True, False])
def test_iwae_s_gradient_is_that_of_the_naive_sum(inside):
    density = random_weights(build_iwae(SHAPE, hidden=3, latents=2, samples=4, inside=inside), scale=0.5)
    image = all_images(PIXELS)[:5]
    torch.manual_seed(2)
    grads = torch.autograd.grad(density({"image": image})["loss"], list(density.parameters()))
    torch.manual_seed(2)
    noise = torch.randn(5, 4, 2, dtype=torch.float64)
    normal = torch.distributions.Normal
    total = 0
    for x, own in zip(image, noise, strict=True):
        mean, log_std = density.encoder(x).chunk(2)
        posterior, terms = normal(mean, log_std.exp()), []
        for e in own:
            z = mean + log_std.exp() * e
            p = density.decoder(z).sigmoid()
            likelihood = torch.where(x == 1, p, 1 - p).prod()
            terms.append(likelihood * (normal(0.0, 1.0).log_prob(z) - posterior.log_prob(z)).sum().exp())
        total = total - (torch.stack(terms).mean().log() if inside else torch.stack(terms).log().mean())
    for one, other in zip(grads, torch.autograd.grad(total / 5, list(density.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_gradient_s_estimators_agree_in_the_mean_and_the_pathwise_one_varies_least():
    density, image = enumerated_vae(), all_images(PIXELS)[::32]
    torch.manual_seed(0)
    means = {}
    for name, surrogate in estimators(density, image).items():
        draws = [torch.autograd.grad(surrogate(), density.encoder[-1].bias)[0] for _ in range(150)]
        means[name] = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 150**0.5
    for name, (mean, error) in means.items():
        assert ((mean - means["path"][0]).abs() < 5 * (error + means["path"][1])).all(), name
    variances = gradient_variances(density, image, 50)
    assert variances["path"] < variances["score_baseline"] < variances["score"]


def test_passes_are_counted():
    image = all_images(PIXELS)[:3]
    for name, density, samples in (("fvsbn", 1, 8), ("nade", 8, 8), ("made", 1, 8), ("orders", 4, 8), ("joint", 3, 8)):
        model = random_weights(EXACT[name]())
        model.log_prob(image)
        assert model.passes == density, name
        model.sample(1)
        assert model.passes == density + samples, name


def test_too_many_pixels_to_enumerate_are_one_line():
    with pytest.raises(UserError, match="2\\^64 images are too many to enumerate: at most 16 pixels"):
        all_images(64)


@pytest.mark.parametrize("name", [*EXACT, "vae", "iwae"])
def test_one_image_and_no_samples(name):
    made = {"vae": lambda: build_vae(SHAPE, hidden=4), "iwae": lambda: build_iwae(SHAPE, hidden=4)} | EXACT
    density = made[name]()
    batch = {"image": torch.ones(1, PIXELS), "label": torch.tensor([1])}
    assert torch.isfinite(density(batch)["loss"])
    assert density.sample(0).shape == (0, PIXELS)
    assert density.sample(1).shape == (1, PIXELS)


def test_nade_s_step_is_the_same_under_autocast():
    """The recursion keeps the weights' precision: mixed types stopped the first step in bfloat16."""
    image = (torch.rand(5, 40, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    grads = []
    for enabled in (False, True):
        torch.manual_seed(1)
        weights = [torch.randn(*shape, requires_grad=True) for shape in ((40, 6), (6,), (40, 6), (40,))]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            recursion.block_logits(image, *weights).square().sum().backward()
        grads.append([weight.grad for weight in weights])
    assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))
