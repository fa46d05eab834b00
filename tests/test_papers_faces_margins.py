"""The margin losses: their maths, and parity of logits and gradients with pytorch-metric-learning."""

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses
from torch.nn import functional as F

from replications.errors import UserError
from replications.layers.faces.heads import CosineHead
from replications.papers.arcface.model import ArcFaceHead, ArcFaceWithTerms
from replications.papers.arcface.model import build as build_arcface
from replications.papers.cosface.model import CosFaceHead
from replications.papers.normface.model import NormFaceHead
from replications.papers.sphereface.model import LAMBDA_MIN, SphereFaceHead, annealed_lambda, psi

DIM, CLASSES, BATCH = 16, 10, 64


def sample(seed=0):
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(BATCH, DIM, generator=generator)
    label = torch.randint(CLASSES, (BATCH,), generator=generator)
    weight = torch.randn(CLASSES, DIM, generator=generator)
    # Put some samples near their class, some opposite: all branches of the margins are taken.
    embedding[:16] = 3 * weight[label[:16]] + 0.3 * embedding[:16]
    embedding[16:32] = -3 * weight[label[16:32]] + 0.3 * embedding[16:32]
    return embedding, label, weight


def loss_and_gradients(loss_of, embedding, weight):
    embedding, weight = embedding.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = loss_of(embedding, weight)
    return (loss, *torch.autograd.grad(loss, (embedding, weight)))


def ours(head, label):
    def loss_of(embedding, weight):
        output = torch.func.functional_call(head, {"weight": weight}, (embedding, label))
        return F.cross_entropy(output.logits, label)

    return loss_of


def theirs(loss, label):
    def loss_of(embedding, weight):
        del loss.W
        loss.W = weight.T
        loss.cast_types = lambda dtype, device: None  # it writes to W.data, which here is not a leaf
        return loss(embedding, label)

    return loss_of


def assert_parity(head, reference):
    embedding, label, weight = sample()
    mine = loss_and_gradients(ours(head, label), embedding, weight)
    other = loss_and_gradients(theirs(reference, label), embedding, weight)
    for name, a, b in zip(("loss", "embedding", "weight"), mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, check_dtype=False, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("margin", [0.3, 0.5, 0.7])
def test_arcface_equals_pytorch_metric_learning(margin):
    # Theirs takes the margin in degrees; its guard beyond pi - m is the same cos(theta) - m sin(m).
    reference = losses.ArcFaceLoss(CLASSES, DIM, margin=math.degrees(margin), scale=64)
    assert_parity(ArcFaceHead(DIM, CLASSES, 64.0, margin), reference)


def test_cosface_equals_pytorch_metric_learning():
    assert_parity(CosFaceHead(DIM, CLASSES, 64.0, 0.35), losses.CosFaceLoss(CLASSES, DIM, margin=0.35, scale=64))


@pytest.mark.parametrize("scale", [20.0, 64.0])
def test_normalised_softmax_equals_pytorch_metric_learning(scale):
    # Theirs takes a temperature, the inverse of the scale.
    reference = losses.NormalizedSoftmaxLoss(CLASSES, DIM, temperature=1 / scale)
    assert_parity(CosineHead(DIM, CLASSES, scale), reference)
    assert_parity(NormFaceHead(DIM, CLASSES, scale), reference)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_sphereface_without_annealing_equals_pytorch_metric_learning(margin):
    # Theirs has no annealing: it is ours at lambda = 0, which training never reaches (lambda_min = 5).
    head = SphereFaceHead(DIM, CLASSES, margin)
    head.annealing = 0.0
    assert_parity(head, losses.SphereFaceLoss(CLASSES, DIM, margin=margin, scale=1))


def test_sphereface_annealing_mixes_in_the_logit_without_margin():
    embedding, label, weight = sample()
    head = SphereFaceHead(DIM, CLASSES)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.annealing = 0.0
        margin = head(embedding, label).logits
        head.annealing = 1e12
        plain = head(embedding, label).logits
        head.annealing = LAMBDA_MIN
        mixed = head(embedding, label).logits
    cosine = F.linear(embedding, F.normalize(weight))
    torch.testing.assert_close(plain, cosine, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(mixed, (5 * plain + margin) / 6, rtol=1e-5, atol=1e-4)


def test_lambda_follows_the_released_schedule_over_its_own_length():
    assert annealed_lambda(0, 28_000) == 1000
    assert annealed_lambda(100, 28_000) == pytest.approx(1000 / 13)
    assert annealed_lambda(1659, 28_000) == 5
    values = [annealed_lambda(step, 50) for step in range(50)]
    assert values[0] == 1000 and values[-1] == 5 and values == sorted(values, reverse=True)
    assert annealed_lambda(7, 140) == annealed_lambda(1400, 28_000)


def test_sphereface_tells_its_head_the_step():
    head = SphereFaceHead(DIM, CLASSES)
    head.on_step(0, 100)
    assert head.annealing == 1000
    head.on_step(99, 100)
    assert head.annealing == LAMBDA_MIN


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_psi_is_continuous_and_falls_from_1_to_1_minus_2m(margin):
    theta = torch.linspace(0, math.pi, 40_001, dtype=torch.float64)
    value = psi(torch.cos(theta), margin)
    steps = value[1:] - value[:-1]
    assert (steps < 0).all()
    assert steps.abs().max() < 1.01 * margin * math.pi / 40_000  # |psi'| <= m: no jump
    assert value[0] == 1 and value[-1] == pytest.approx(1 - 2 * margin)
    for k in range(margin):
        inside = (theta >= k * math.pi / margin) & (theta <= (k + 1) * math.pi / margin)
        direct = (-1) ** k * torch.cos(margin * theta[inside]) - 2 * k
        torch.testing.assert_close(value[inside], direct, rtol=0, atol=1e-9)


def test_arcface_target_is_the_cosine_of_the_angle_plus_the_margin():
    theta = torch.linspace(0.01, math.pi - 0.51, 100, dtype=torch.float64)
    value = ArcFaceHead(DIM, CLASSES).add_margin(torch.cos(theta))
    torch.testing.assert_close(value, torch.cos(theta + 0.5), rtol=0, atol=1e-9)


@pytest.mark.parametrize("guard", ["mxnet", "none"])
def test_arcface_gradient_in_float64(guard):
    head = ArcFaceHead(DIM, CLASSES, guard=guard)
    theta = torch.tensor([0.05, 0.3, 1.0, math.pi / 2, 2.0, 2.6], dtype=torch.float64)
    cosine = torch.cos(theta).requires_grad_()
    assert torch.autograd.gradcheck(head.add_margin, cosine)
    (gradient,) = torch.autograd.grad(head.scale * head.add_margin(cosine).sum(), cosine)
    torch.testing.assert_close(gradient, 64 * torch.sin(theta + 0.5) / torch.sin(theta))


def test_straight_through_gradient_is_the_scale_and_its_logits_are_the_same():
    cosine = torch.linspace(-1, 1, 21, dtype=torch.float64, requires_grad=True)
    exact, through = (ArcFaceHead(DIM, CLASSES, gradient=g) for g in ("exact", "straight_through"))
    torch.testing.assert_close(exact.add_margin(cosine), through.add_margin(cosine))
    (gradient,) = torch.autograd.grad(64 * through.add_margin(cosine).sum(), cosine)
    assert (gradient == 64).all()


def test_guard_keeps_the_target_logit_falling_up_to_pi():
    theta = torch.linspace(1e-3, math.pi, 5001, dtype=torch.float64)
    value = {guard: ArcFaceHead(DIM, CLASSES, guard=guard).add_margin(torch.cos(theta)) for guard in ("mxnet", "none")}
    assert (value["mxnet"].diff() < 0).all()
    assert (value["none"].diff() > 0).any(), "without the guard it rises again beyond pi - m"
    assert torch.equal(value["mxnet"][theta < math.pi - 0.5], value["none"][theta < math.pi - 0.5])


def test_easy_margin_applies_only_below_a_right_angle():
    cosine = torch.tensor([-0.9, -0.1, 0.1, 0.9], dtype=torch.float64)
    value = ArcFaceHead(DIM, CLASSES, guard="easy_margin").add_margin(cosine)
    assert torch.equal(value[:2], cosine[:2])
    torch.testing.assert_close(value[2:], torch.cos(torch.acos(cosine[2:]) + 0.5))


@pytest.mark.parametrize("extreme", [1.0, -1.0, 1.0 + 1e-7, -1.0 - 1e-7])
def test_arcface_gradient_is_finite_and_not_zero_at_the_ends(extreme):
    cosine = torch.tensor([extreme], requires_grad=True)
    (gradient,) = torch.autograd.grad(ArcFaceHead(DIM, CLASSES).add_margin(cosine).sum(), cosine)
    assert torch.isfinite(gradient).all() and (gradient > 0).all()


MARGIN_HEADS = [ArcFaceHead, CosFaceHead, SphereFaceHead]


@pytest.mark.parametrize("head_class", MARGIN_HEADS)
def test_margin_touches_the_own_class_alone_and_lowers_it(head_class):
    # An inverted mask puts the margin on all the other classes: it still trains, as another loss.
    embedding, label, weight = sample()
    head = head_class(DIM, CLASSES)
    cosine = F.linear(F.normalize(embedding), F.normalize(weight))
    with torch.no_grad():
        changed = head.margin_logits(cosine, label)
    own = F.one_hot(label, CLASSES).bool()
    assert torch.equal(changed[~own], cosine[~own])
    assert (changed[own] < cosine[own]).all()


@pytest.mark.parametrize("head_class", MARGIN_HEADS)
def test_margin_is_computed_in_float32_under_autocast(head_class):
    embedding, label, _ = sample()
    head = head_class(DIM, CLASSES)
    exact = head(embedding, label).logits
    with torch.autocast("cpu", torch.bfloat16):
        output = head(embedding, label)
    assert output.logits.dtype == torch.float32
    torch.testing.assert_close(output.logits, exact)


def test_feature_length_counts_in_sphereface_alone():
    embedding, label, _ = sample()
    for head_class, factor in ((ArcFaceHead, 1.0), (CosFaceHead, 1.0), (SphereFaceHead, 2.0)):
        head = head_class(DIM, CLASSES)
        torch.testing.assert_close(head(2 * embedding, label).logits, factor * head(embedding, label).logits)
        before = head(embedding, label).logits
        head.weight.data *= 3
        torch.testing.assert_close(head(embedding, label).logits, before)


def test_normalised_softmax_without_a_scale_stops_at_its_bound():
    # NormFace, Proposition 2: n classes on a regular simplex, each sample on its class's weight.
    n = CLASSES
    simplex = F.normalize(torch.eye(n) - 1 / n)
    for scale in (1.0, 5.0):
        head = NormFaceHead(n, n, scale)
        head.weight.data.copy_(simplex)
        loss = F.cross_entropy(head(simplex, torch.arange(n)).logits, torch.arange(n))
        bound = math.log1p((n - 1) * math.exp(-scale * n / (n - 1)))
        assert loss.item() == pytest.approx(bound, rel=1e-3)


def test_normface_learns_its_scale():
    embedding, label, _ = sample()
    head = NormFaceHead(DIM, CLASSES, 20.0)
    F.cross_entropy(head(embedding, label).logits, label).backward()
    assert head.scale.grad is not None and head.scale.grad != 0


def test_intra_and_inter_terms_are_the_papers_angles():
    torch.manual_seed(0)
    backbone = {"depth": 10, "width": 0.125, "embedding_dim": DIM}
    model = build_arcface(CLASSES, 16, backbone=backbone, terms=True)
    assert isinstance(model, ArcFaceWithTerms)
    embedding, label, weight = sample()
    model.head.weight.data.copy_(weight)
    logs = model.classify(embedding, label)
    unit = F.normalize(weight).double().numpy()
    to_own = (F.normalize(embedding).double().numpy() * unit[label]).sum(1)
    between = np.arccos(np.clip(unit @ unit.T, -1, 1))
    np.fill_diagonal(between, 0)
    intra = np.arccos(to_own).mean() / np.pi
    inter = -(between.sum(1)[label] / (CLASSES - 1)).mean() / np.pi
    assert logs["intra"].item() == pytest.approx(intra, rel=1e-4)
    assert logs["inter"].item() == pytest.approx(inter, rel=1e-4)
    plain = F.cross_entropy(model.head(embedding, label).logits, label)
    assert logs["loss"].item() == pytest.approx(plain.item() + intra + inter, rel=1e-4)
    logs["loss"].backward()
    assert torch.isfinite(model.head.weight.grad).all()


@pytest.mark.parametrize(("option", "value"), [("guard", "mxnett"), ("gradient", "exactly")])
def test_unknown_option_values_are_named(option, value):
    with pytest.raises(UserError, match=f"{option} '{value}' .did you mean"):
        ArcFaceHead(DIM, CLASSES, **{option: value})


def test_sphereface_margin_is_a_small_integer():
    with pytest.raises(UserError, match="from 1 to 4"):
        SphereFaceHead(DIM, CLASSES, 5)
