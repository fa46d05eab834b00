"""Latent diffusion: labels, guidance, scaling and the Gaussian fit, against naive forms."""

import pytest
import torch

from replications.errors import UserError
from replications.layers.diffusion.chain import Chain
from replications.layers.diffusion.schedules import linear_betas
from replications.papers.ldm.model import Conditional, build

SHAPE = (8, 8)


def model(**options):
    torch.manual_seed(0)
    return build(SHAPE, 3, 30, 16, 2, latent_numbers=4, **options).eval()


def test_the_label_is_added_to_the_first_hidden_layer():
    torch.manual_seed(1)
    denoiser = Conditional(4, 8, 2, Chain(linear_betas(30)), 3)
    x, label, index = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0]), torch.full((5,), 7)
    first = denoiser.net[0](torch.cat([x, denoiser.time[index]], 1)) + denoiser.embedding.weight[label]
    hidden = first
    for layer in denoiser.net[1:]:
        hidden = layer(hidden)
    torch.testing.assert_close(denoiser.given(label).output(x, index), hidden)


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_guidance_goes_from_no_label_through_the_label(weight):
    found, x, label = model(), torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    conditional = found.denoiser.given(label)(x, 9)
    none = found.denoiser.given(torch.full((6,), 3))(x, 9)
    assert not torch.allclose(conditional, none, atol=1e-3)
    expected = none + weight * (conditional - none)
    torch.testing.assert_close(found.denoise(label, weight)(x, 9), expected)


def test_labels_are_even_and_follow_the_last_number():
    found = model()
    noise = torch.randn(9000, 5, generator=torch.Generator().manual_seed(0))
    labels = found.labels(noise)
    torch.testing.assert_close(torch.bincount(labels) / 9000, torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    assert (labels[noise[:, -1].argsort()].diff() >= 0).all()


def test_latents_are_scaled_by_their_running_deviation_or_not():
    image = torch.rand(64, 64) * 2 - 1
    found = model().train()
    for _ in range(2000):
        found._follow(found.encoder(image).detach())
    latent = found.encoder(image)
    torch.testing.assert_close(found.scale(), latent.std(0, correction=0), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.mean, latent.mean(0), rtol=1e-3, atol=1e-5)
    assert torch.equal(model(scaled=False).scale(), torch.ones(4))


def test_the_gaussian_has_the_latents_mean_and_covariance():
    found = model()
    root = torch.randn(4, 4)
    found.mean.copy_(torch.arange(4.0))
    found.covariance.copy_(root @ root.T)
    seen = []
    found.decoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    found.samplers()["gaussian"](torch.randn(200_000, 5, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(seen[0].mean(0), found.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(seen[0].T.cov(), found.covariance, atol=0.1, rtol=0.03)


def test_the_chain_has_no_part_in_the_autoencoder():
    found = model().train()
    loss = found({"image": torch.rand(8, 64), "label": torch.arange(8) % 3})
    loss["chain"].backward(retain_graph=True)
    assert all(p.grad is None for part in (found.encoder, found.decoder) for p in part.parameters())
    assert all(p.grad is not None for p in found.denoiser.net.parameters())


def test_a_set_without_labels_is_refused():
    with pytest.raises(UserError, match="no labels"):
        build(SHAPE, 0, 30, 16, 2)
