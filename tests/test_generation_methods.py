"""Diffusion of images and adversaries: samplers against loops, the single loss's gradients, norms, codes."""

import math

import pytest
import torch

from replications.errors import UserError
from replications.papers.diffusion_images import model as diffusion
from replications.papers.gan import model, networks

SHAPE = (2, 3)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def chain_of(steps=30, **options):
    return diffusion.build(SHAPE, steps, [5], 8, 2, 8, **options)


def test_a_denoiser_that_knows_the_data_is_right_for_every_prediction():
    x0, eps = torch.randn(4, 6), torch.randn(4, 6)
    for prediction in ("noise", "data", "velocity"):
        found = chain_of(prediction=prediction)
        signal, noise = found.chain.signal[7].item(), found.chain.noise[7].item()
        known = {"noise": eps, "data": x0, "velocity": signal * eps - noise * x0}[prediction]
        found.denoiser.output = lambda x, index, known=known: known
        assert torch.allclose(found.denoiser(signal * x0 + noise * eps, 7), x0, atol=1e-5)


def test_the_simple_loss_is_a_squared_distance_an_image():
    found = chain_of()
    found.denoiser.output = lambda x, index: torch.zeros_like(x)
    loss = found({"image": torch.zeros(20000, 6)})["loss"]
    assert loss.item() == pytest.approx(6, rel=0.03)  # the squared norm of six normal numbers


def test_ddim_by_a_loop():
    """Eq. 12 of the paper with sigma 0, in float64, step by step; x_0 clipped."""
    found = chain_of().double()
    x = noise = torch.randn(3, 6, dtype=torch.float64)
    alphas = torch.cumprod(1 - torch.linspace(0.1, 20, 30, dtype=torch.float64) / 30, 0)
    for i, then in ((29, 23), (23, 17), (17, 11), (11, 5), (5, None)):
        now, after = alphas[i], alphas[then] if then is not None else torch.tensor(1.0)
        index = torch.full((3,), i)
        eps = found.denoiser.output(x, index)
        x0 = ((x - (1 - now).sqrt() * eps) / now.sqrt()).clamp(-1, 1)
        x = after.sqrt() * x0 + (1 - after).sqrt() * (x - now.sqrt() * x0) / (1 - now).sqrt()
    assert torch.allclose(found.samplers()["eta0_5"](noise), x, atol=1e-5)


def test_first_sampler_clips_and_ends_where_its_states_do():
    found = chain_of()
    found.denoiser.output = lambda x, index: 100 * torch.ones_like(x)
    noise = torch.randn(2, 6)
    assert found.samplers()["ancestral"](noise).abs().max() <= 1
    assert found.samplers()["unclipped"](noise).abs().max() > 10
    states = found.states(noise)
    assert len(states) == 31 and torch.equal(states[0], noise) and torch.equal(states[-1], -torch.ones(2, 6))


def test_more_steps_than_trained_are_refused_before_training():
    with pytest.raises(UserError, match="a sampler of 40 steps on a chain of 30: give at most 30"):
        diffusion.build(SHAPE, 30, [40], 8, 2, 8)
    with pytest.raises(UserError, match="give at least 1"):
        diffusion.build(SHAPE, 30, [0], 8, 2, 8)


def gradients(module, loss):
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_the_single_loss_has_the_gradients_of_both(rate):
    one = model.SingleLoss(6, 4, 8, rate).double().eval()  # the power iteration of eval mode stands still
    batch = {"image": torch.randn(10, 6, dtype=torch.float64)}
    noise = torch.randn(10, 4, dtype=torch.float64)
    one.noise = lambda count: noise
    found = gradients(one, one(batch)["loss"])
    critic, generator = (model.Adversaries.forward(one, batch, turn)["loss"] for turn in ("critic", "generator"))
    assert one(batch)["loss"].item() == pytest.approx(critic.item(), abs=1e-12)
    of_critic = gradients(one, critic)
    of_generator = gradients(one, model.Adversaries.forward(one, batch, "generator")["loss"])
    for name, gradient in found.items():
        expected = of_critic[name] if name.startswith("critic") else rate * of_generator[name]
        assert torch.allclose(gradient, expected, rtol=0, atol=1e-12), name
        assert gradient.abs().max() > 0 or name == "critic.4.bias"  # where all images are within the hinge
    assert found.keys() == dict(one.named_parameters()).keys() and generator.isfinite()


def test_hinge_losses():
    real, fake = torch.tensor([[2.0], [0.5]]), torch.tensor([[-3.0], [0.25]])
    assert model.hinge(real, fake).item() == pytest.approx((0 + 0.5) / 2 + (0 + 1.25) / 2)


def test_each_layer_of_a_normed_critic_has_a_norm_of_1():
    critic = networks.critic(6, 8, 1, normed=True).train()
    for _ in range(200):  # power iterations
        critic(torch.randn(2, 6))
    for layer in critic.eval()[::2]:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-3)
    plain = networks.critic(6, 8, 1, normed=False)
    assert torch.linalg.matrix_norm(plain[0].weight, 2).item() != pytest.approx(1, abs=1e-3)


def test_modulation_begins_near_batch_normalisation_and_depends_on_the_noise():
    layer, x = networks.SelfModulation(5, 3), torch.randn(50, 5) * 4 + 2
    normalised = (x - x.mean(0)) / x.var(0, correction=0).add(1e-5).sqrt()
    noise = torch.zeros(50, 3)
    hidden = layer.hidden.bias.relu()
    scale = layer.scale.weight @ hidden + 1
    shift = layer.shift.weight @ hidden + layer.shift.bias
    assert torch.allclose(layer(x, noise), normalised * scale + shift, atol=1e-5)
    assert not torch.allclose(layer(x, torch.randn(50, 3)), layer(x, noise), atol=1e-2)
    plain = networks.PlainNorm(5)
    assert torch.allclose(plain(x, noise), normalised, atol=1e-5)


def test_ogan_loss_by_hand():
    found = model.ogan(SHAPE, 4, 8)
    real, noise = torch.randn(7, 6), torch.randn(7, 4)
    found.noise = lambda count: noise
    fake = found.eval().generator(noise)
    score_r, code = found.critic(real).mean(1), found.critic(fake)
    gap = score_r - code.mean(1)
    same = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(noise, code, strict=True)])
    expected = (gap + 0.25 * gap**2 / ((real - fake) ** 2).mean(1)).mean() - 0.5 * same.mean()
    values = found({"image": real})
    assert values["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert values["correlation"].item() == pytest.approx(same.mean().item(), abs=1e-5)


def test_the_critic_of_ogan_is_an_encoder_of_codes_without_scale():
    found = model.ogan(SHAPE, 4, 8).eval()
    code = found.encode(torch.randn(9, 6))
    assert torch.allclose(code.mean(1), torch.zeros(9), atol=1e-5)
    assert torch.allclose(code.std(1, correction=0), torch.ones(9), atol=1e-4)
    found.generator.forward, found.critic.forward = (
        (lambda z: torch.cat([z, z[:, :2]], 1)),
        (lambda x: 3 * x[:, :4] + 1),
    )
    assert found.measure(torch.zeros(1000, 6))["code_correlation"] == pytest.approx(1, abs=1e-4)
    found.critic.forward = lambda x: torch.randn(len(x), 4)
    assert abs(found.measure(torch.zeros(1000, 6))["code_correlation"]) < 3 / math.sqrt(3 * 1000)


def test_rebuilt_images_are_compared_with_their_own():
    found = model.ogan(SHAPE, 6, 8).eval()
    images = model.standardised(torch.randn(50, 6))
    found.generator.forward, found.critic.forward = (lambda z: z), (lambda x: x)
    measured = found.measure(images)
    assert measured["reconstruction_mse"] == pytest.approx(0.01, rel=1e-3)  # codes are shortened to 0.9
    assert measured["shuffled_mse"] == pytest.approx(((0.9 * images.roll(1, 0) - images) ** 2).mean().item(), rel=1e-4)
