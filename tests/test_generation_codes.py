"""Codebooks, relaxed codes, models of symbols, and VQ-VAE: against naive forms and by enumeration."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from replications.errors import UserError
from replications.layers.generation.codes import Codebook, Relaxation, usage
from replications.layers.generation.sequence import SymbolModel, by_inverse
from replications.papers.vqvae import model as vqvae

SHAPE = (8, 8)


def vectors(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def codebook(learning, size=5, width=3):
    torch.manual_seed(1)
    return Codebook(size, width, learning).double()


@pytest.mark.parametrize("learning", ["loss", "average"])
def test_each_vector_gets_the_nearest_code(learning):
    book, found = codebook(learning), 0.2 * vectors(7, 4, 3)
    expected = (found[..., None, :] - book.table()).norm(dim=-1).argmin(-1)
    assert len(expected.unique()) > 1
    assert torch.equal(book.nearest(found), expected)
    coded = book.eval()(found)
    torch.testing.assert_close(coded.vectors, book.table()[expected])


@pytest.mark.parametrize("learning", ["loss", "average"])
def test_gradients_pass_straight_through_and_the_loss_is_that_of_equation_3(learning):
    book = codebook(learning)
    found = vectors(6, 3).requires_grad_()
    coded = book(found)
    weight = vectors(6, 3).flip(0)
    (straight,) = torch.autograd.grad((coded.vectors * weight).sum(), found, retain_graph=True)
    torch.testing.assert_close(straight, weight)
    chosen = codebook(learning).table()[coded.codes]
    difference = (found - chosen).detach()
    (pull,) = torch.autograd.grad(coded.loss, found, retain_graph=True)
    torch.testing.assert_close(pull, 0.25 * 2 * difference / difference.numel())
    expected = difference.square().mean() * (1.25 if learning == "loss" else 0.25)
    torch.testing.assert_close(coded.loss.detach(), expected)
    if learning == "loss":
        (moved,) = torch.autograd.grad(coded.loss, book.vectors)
        naive = torch.zeros_like(moved).index_add_(0, coded.codes, -2 * difference / difference.numel())
        torch.testing.assert_close(moved, naive)


def test_averages_follow_the_vectors_that_chose_a_code_and_leave_the_others():
    book = codebook("average")
    before = book.table().clone()
    found = vectors(6, 3)
    counts, sums = [1.0] * 5, [v.clone() for v in before]
    for _ in range(3):
        table = torch.stack([s / c for s, c in zip(sums, counts, strict=True)])
        codes = [int((v - table).norm(dim=1).argmin()) for v in found]
        for k in range(5):
            mine = [v for v, c in zip(found, codes, strict=True) if c == k]
            counts[k] = 0.99 * counts[k] + 0.01 * len(mine)
            sums[k] = 0.99 * sums[k] + 0.01 * sum(mine, torch.zeros(3, dtype=torch.float64))
        book(found)
    torch.testing.assert_close(book.table(), torch.stack([s / c for s, c in zip(sums, counts, strict=True)]))
    unused = sorted(set(range(5)) - set(codes))
    torch.testing.assert_close(book.table()[unused], before[unused])
    book.eval()
    kept = book.table().clone()
    book(found)
    assert torch.equal(book.table(), kept)


def test_a_code_that_nobody_chooses_for_long_keeps_its_vector():
    book = Codebook(4, 2, "average", decay=0.5)
    far = book.table()[3].clone()
    with torch.no_grad():
        for _ in range(400):  # 2^-400 is 0 in float32
            book._follow(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    assert book.table().isfinite().all()
    torch.testing.assert_close(book.table()[3], far, rtol=1e-3, atol=1e-6)


def test_relaxed_codes_are_mixtures_that_near_the_drawn_code_as_they_cool():
    logits = vectors(400, 5).float()
    warm, cold = Relaxation(5, 2, 5.0), Relaxation(5, 2, 0.01)
    spread = []
    for relaxed in (warm, cold):
        torch.manual_seed(2)
        mixed = relaxed(logits).vectors
        spread.append((mixed[:, None] - relaxed.table()).norm(dim=-1).min(1).values.median().item())
    assert spread[1] < 1e-3 < spread[0]
    assert torch.equal(cold.nearest(logits), logits.argmax(-1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Codebook(1, 2, "loss"), "at least 2"),
        (lambda: Codebook(4, 2, "guess"), "by 'guess'"),
        (lambda: Relaxation(4, 2, 0.0), "above 0"),
        (lambda: vqvae.build((6, 8), 8, 4), "multiples of 4"),
    ],
)
def test_what_cannot_be_is_told(call, message):
    with pytest.raises(UserError, match=message):
        call()


# Symbols


def test_a_models_probabilities_of_all_sequences_sum_to_1_and_draws_follow_them():
    torch.manual_seed(3)
    model = SymbolModel(3, 3, 8).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    sequences = torch.tensor(list(product(range(3), repeat=3)))
    with torch.no_grad():
        probability = model.log_prob(sequences).sum(1).exp()
        assert probability.sum().item() == pytest.approx(1)
        drawn = model.draw(vectors(60_000, 3))
    shares = torch.bincount(drawn @ torch.tensor([9, 3, 1]), minlength=27) / len(drawn)
    assert probability.max() > 0.1
    torch.testing.assert_close(shares.double(), probability, atol=0.008, rtol=0)


def test_a_symbol_depends_on_those_before_it_alone():
    torch.manual_seed(4)
    model, one = SymbolModel(4, 5, 8), torch.tensor([[0, 1, 2, 3]])
    other = torch.tensor([[0, 1, 4, 3]])
    difference = (model.log_prob(one) - model.log_prob(other))[0]
    assert difference[:2].abs().max() == 0 and difference[2:].abs().min() > 0


def test_the_inverse_is_of_the_cumulative_shares():
    probabilities = torch.tensor([[0.2, 0.5, 0.3]]).repeat(5, 1)
    quantile = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.999], dtype=torch.float64)
    noise = torch.special.ndtri(quantile)
    assert by_inverse(probabilities, noise)[:, 0].tolist() == [0, 0, 1, 1, 2]
    assert by_inverse(probabilities[:1], torch.tensor([math.inf])).item() == 2


# The method


def test_the_prior_has_no_part_in_the_codes_and_the_codes_none_in_the_prior():
    torch.manual_seed(5)
    model = vqvae.build(SHAPE, 8, 4, codes=8)
    loss = model({"image": torch.rand(6, 64) * 2 - 1})
    loss["prior"].backward(retain_graph=True)
    assert all(p.grad is None for part in (model.encoder, model.decoder) for p in part.parameters())
    assert all(p.grad is not None for p in model.prior.parameters())
    model.zero_grad()
    (loss["loss"] - loss["prior"]).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.prior.parameters())
    assert all(p.grad is not None for p in model.encoder.parameters())


@pytest.mark.parametrize("build", [vqvae.build, vqvae.relaxed])
def test_images_become_codes_and_back(build):
    torch.manual_seed(6)
    model = build((8, 12), 8, 4, codes=8).eval()
    image = torch.rand(5, 96) * 2 - 1
    coded = model.quantiser(model.encode(image))
    assert coded.codes.shape == (5, 6) and model.decode(coded.vectors).shape == (5, 96)
    for sampler in model.samplers().values():
        assert sampler(model.noise(4)).shape == (4, 96)
    found = model.measure(image)
    assert found["relaxed_mse"] == pytest.approx(found["reconstruction_mse"]) or build is vqvae.relaxed
    assert 0 < found["used_codes"] <= 100 and 1 <= found["perplexity"] <= 8
    log_prob = model.prior.log_prob(model.quantiser.nearest(model.encode(image)))
    assert found["code_bits"] == pytest.approx(-log_prob.mean().item() / math.log(2), rel=1e-5)


def test_even_codes_are_even():
    model = vqvae.build(SHAPE, 8, 4, codes=4)
    seen = []
    model.of_codes = lambda codes: seen.append(codes) or F.one_hot(codes).float()
    model._evenly(vectors(20_000, 4).float())
    shares = torch.bincount(seen[0].flatten(), minlength=4) / seen[0].numel()
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.01, rtol=0)


def test_pixels_keep_the_levels_of_the_digits():
    image = torch.arange(17) / 8 - 1
    assert torch.equal(vqvae.levels(image), torch.arange(17))
    model = vqvae.pixels((2, 2), 8)
    drawn = model.samplers()["pixels"](model.noise(50))
    assert drawn.min() >= -1 and drawn.max() <= 1
    assert torch.allclose(vqvae.levels(drawn) / 8 - 1, drawn)


def test_usage_is_the_share_of_codes_in_use_and_the_exponent_of_their_entropy():
    found = usage(torch.tensor([[0, 0], [1, 3]]), 8)
    assert found["used_codes"] == 37.5
    assert found["perplexity"] == pytest.approx(2**0.5 * 4**0.5)  # shares 1/2, 1/4, 1/4: an entropy of 3/2 bits
