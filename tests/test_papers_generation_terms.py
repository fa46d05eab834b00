"""VQGAN's terms, GLANN's latents and DCGAN's losses and pattern, against naive forms."""

import math

import pytest
import torch
import torch.nn.functional as F

from replications.errors import UserError
from replications.layers.generation.averaged import WithAverage
from replications.papers.dcgan import model as dcgan
from replications.papers.glann import model as glann
from replications.papers.vqgan import model as vqgan
from replications.papers.vqgan.networks import Judge, patch_critic


@pytest.fixture
def images():
    """Images of whole grey levels, as the sets have them, and labels."""
    torch.manual_seed(3)
    grey = torch.randint(0, 256, (12, 64)).float()
    return {"image": grey / 127.5 - 1, "label": torch.arange(12) % 3}


def small(**options):
    torch.manual_seed(1)
    return vqgan.build((8, 8), 3, 8, 8, codes=8, **options)


def test_the_adaptive_weight_is_the_ratio_of_gradients_at_the_last_layer(images):
    model = small().double().train()
    image = images["image"].double().unflatten(1, (1, 8, 8))
    rebuilt = model.stages.decode(model.stages.codebook(model.stages.encode(image)).vectors)
    error, fooled = (rebuilt - image).abs().mean(), -model.critic(rebuilt).mean()
    last = model.stages.decoder[-1].weight
    apart = [torch.autograd.grad(of, last, retain_graph=True)[0].square().sum().sqrt() for of in (error, fooled)]
    expected = min(apart[0] / (apart[1] + 1e-4), torch.tensor(1e4))
    found = model.adaptive_weight(error, fooled)
    assert not found.requires_grad and found.item() == pytest.approx(expected.item(), rel=1e-9)
    nothing = 0 * fooled
    assert model.adaptive_weight(error, nothing).item() == pytest.approx(min(apart[0].item() / 1e-4, 1e4))


def test_the_turns_lose_what_they_should(images):
    model = small(perceptual=0.5).train()
    model.stages.codebook.eval()  # its averages stay, so that two passes agree
    image = images["image"].unflatten(1, (1, 8, 8))
    coded = model.stages.codebook(model.stages.encode(image))
    rebuilt = model.stages.decode(coded.vectors)
    features = zip(model.judge.features(rebuilt), model.judge.features(image), strict=True)
    far = 0.0
    for one, other in features:
        one, other = (of / of.pow(2).sum(1, keepdim=True).sqrt() for of in (one, other))
        far = far + ((one - other) ** 2).sum(1).mean()
    error = (rebuilt - image).abs().mean() + 0.5 * far
    prior = -model.stages.prior.log_prob(coded.codes).mean()
    fooled = -model.critic(rebuilt).mean()
    weight = model.adaptive_weight(error, fooled)
    found = model(images, turn="stages")
    assert found["loss"].item() == pytest.approx((error + coded.loss + prior + 0.8 * weight * fooled).item(), rel=1e-5)
    labels = F.cross_entropy(model.judge(image), images["label"])
    assert model(images, turn="judge")["loss"].item() == pytest.approx(labels.item())
    model.critic.eval()  # fixed statistics, so that two passes agree
    real, fake = model.critic(image), model.critic(rebuilt)
    hinge = (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    assert model(images, turn="critic")["loss"].item() == pytest.approx(hinge.item(), rel=1e-3)


def test_the_adversarial_loss_waits_for_its_step(images):
    model = small(start=2).train()
    for step in range(4):
        model.zero_grad()
        model(images, turn="stages")["loss"].backward()
        reached = any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.critic.parameters())
        assert reached == (step >= 2), step


def test_only_what_a_row_has_takes_turns():
    assert [turn.name for turn in small().turns] == ["judge", "stages", "critic"]
    assert [turn.name for turn in small(adversarial=False).turns] == ["judge", "stages"]
    assert [turn.name for turn in small(adversarial=False, perceptual=0).turns] == ["stages"]


def test_rebuilt_samples_are_rebuilt_training_images(images):
    both = WithAverage(small(), 0.9).train()
    for step in range(100):
        both.on_step(step, 100)
        both({name: value[torch.randperm(12)] for name, value in images.items()}, turn="stages")
    both.eval()
    model = both.averaged
    with torch.no_grad():
        found = model.samplers()["rebuilt"](model.noise(50))
        rebuilt = model.rebuild(images["image"])
    apart = torch.cdist(found, rebuilt)
    assert apart.min(1).values.max() < 1e-4, "images are blends"
    grey = {tuple(row) for row in ((images["image"] + 1) * 127.5).round().tolist()}
    assert {tuple(row) for row in model.kept.tolist()} == grey, "kept images are blends"


def test_a_score_of_the_critic_sees_ten_pixels():
    critic = patch_critic(4).eval()
    image = torch.zeros(1, 1, 32, 32, requires_grad=True)
    scores = critic(image)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    seen = image.grad[0, 0].abs().sum(0).nonzero().flatten()
    assert seen.max() - seen.min() + 1 == 10


def test_a_perceptual_distance_is_zero_of_the_same_and_does_not_see_contrast_of_features(images):
    judge = Judge(4, 3)
    image = images["image"].unflatten(1, (1, 8, 8))
    assert judge.distance(image, image).item() == 0
    assert 0 < judge.distance(image, -image).item() <= 8


def test_bad_networks_are_refused():
    with pytest.raises(UserError, match="multiples of 4"):
        vqgan.build((10, 8), 3, 8, 8)
    with pytest.raises(UserError, match="a set with labels"):
        vqgan.build((8, 8), 0, 8, 8)
    with pytest.raises(UserError, match="at least 1"):
        glann.build((8, 8), 4, 8, candidates=0)
    with pytest.raises(UserError, match="at least 1"):
        glann.pixels((8, 8), 8, candidates=0)


def test_an_image_has_one_latent_of_length_one(images):
    model = glann.build((8, 8), 4, 16)
    image = images["image"]
    again = model.latent_of(image.flip(0)).flip(0)
    latent = model.latent_of(image)
    assert torch.equal(latent, again)
    assert torch.allclose(latent.norm(dim=1), torch.ones(12))
    assert len(model.slots(image).unique()) == 12
    nearly = image.clone()
    nearly[:, 5] += 1 / 127.5  # one grey level of one pixel
    assert (model.slots(nearly) != model.slots(image)).all()


def test_hashes_spread_over_the_slots():
    torch.manual_seed(0)
    model = glann.build((8, 8), 4, 16)
    many = torch.randint(0, 256, (20_000, 64)).float() / 127.5 - 1
    distinct = len(model.slots(many).unique())
    expected = glann.SLOTS * (1 - math.exp(-20_000 / glann.SLOTS))
    assert distinct == pytest.approx(expected, rel=0.02)


def test_the_nearest_candidate_pulls(images):
    model = glann.build((8, 8), 4, 16, candidates=3)
    torch.manual_seed(5)
    noise = torch.randn(36, 16)
    target = model.latent_of(images["image"]).detach()
    found = glann.nearest(target, model.mapped, noise)
    candidates = model.mapped(noise).detach()
    for row, chosen in zip(target, found, strict=True):
        best = min(range(36), key=lambda i: ((candidates[i] - row) ** 2).sum().item())
        assert torch.equal(noise[best], chosen)


def test_the_mapping_moves_no_latent_and_the_rebuilding_moves_them(images):
    model = glann.build((8, 8), 4, 16).train()
    losses = model(images)
    losses["mapping"].backward(retain_graph=True)
    assert model.latents.weight.grad is None and model.generator[0].weight.grad is None
    losses["reconstruction"].backward()
    touched = model.latents.weight.grad.abs().sum(1).nonzero().flatten()
    assert torch.equal(touched, model.slots(images["image"]).sort().values)


def test_the_gaussian_has_the_latents_mean_and_covariance():
    torch.manual_seed(2)
    model = glann.build((8, 8), 4, 16)
    model.mean.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]))
    root = torch.randn(4, 4)
    model.covariance.copy_(root @ root.T)
    drawn = torch.randn(200_000, 4) @ model._root().T
    assert torch.allclose(drawn.T @ drawn / len(drawn), model.covariance, atol=0.05)


def test_dcgans_losses_are_cross_entropies_with_labels_real_and_made(images):
    torch.manual_seed(4)
    model = dcgan.build((8, 8), 6, 4).eval()  # fixed statistics, so that two passes agree
    image = images["image"]
    torch.manual_seed(9)
    fake = model.generator(torch.randn(12, 6))
    real_score, fake_score = (model.critic(of.reshape(-1, 1, 8, 8))[:, 0] for of in (image, fake))
    one, zero = torch.ones(12), torch.zeros(12)
    bce = F.binary_cross_entropy_with_logits
    for turn, expected in (
        ("critic", bce(real_score, one) + bce(fake_score, zero)),
        ("generator", bce(fake_score, one)),
    ):
        torch.manual_seed(9)
        assert model(images, turn=turn)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_share_of_pairs_is_that_of_patterns_of_two_pixels():
    column, row = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="xy")
    board = (-1) ** (column + row)
    slow = torch.cos(2 * math.pi * column / 8)
    share = dcgan.build((8, 8), 6, 4).pair_share
    assert share(torch.stack([board, (-1) ** row, (-1) ** column]).flatten(1)) == pytest.approx(1)
    assert share((3 + slow).reshape(1, 64)) == pytest.approx(0, abs=1e-12)
    # energies: board 64 pixels of 0.3 squared, slow 64 of 1/2
    assert share((slow + 0.3 * board).reshape(1, 64)) == pytest.approx(0.09 / 0.59)
    torch.manual_seed(0)
    assert share(torch.randn(4000, 64)) == pytest.approx(3 / 63, rel=0.05)


def test_untrained_transposed_convolutions_have_pairs_and_resized_images_few():
    torch.manual_seed(0)
    shares = {
        doubling: dcgan.build((16, 16), 16, 16, doubling=doubling).untrained for doubling in ("transposed", "resized")
    }
    assert shares["transposed"] > 5 * shares["resized"]


def test_dcgan_refuses_what_it_cannot_double():
    with pytest.raises(UserError, match="multiples of 4"):
        dcgan.build((10, 8), 6, 4)
    with pytest.raises(UserError, match="give transposed or resized"):
        dcgan.build((8, 8), 6, 4, doubling="bilinear")
