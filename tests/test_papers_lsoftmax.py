"""L-Softmax: its head against the paper's formula, written as loops in float64, and against the plain softmax."""

import math

import pytest
import torch
from torch.nn import functional as F

from replications.errors import UserError
from replications.layers.faces.heads import SoftmaxHead
from replications.papers.lsoftmax.model import LSoftmaxHead, annealed_lambda, build, psi

DIM, CLASSES = 6, 5
MARGINS = (1, 2, 3, 4)


def naive_psi(theta: float, margin: int) -> float:
    """The definition, by the angle itself."""
    k = min(int(theta * margin / math.pi), margin - 1)
    return (-1) ** k * math.cos(margin * theta) - 2 * k


def sample(margin, seed=0):
    """Embeddings of several norms, whose angles to their own class are in each of the `margin` intervals."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(CLASSES, DIM, generator=generator, dtype=torch.float64)
    theta = torch.tensor([(k + part) * math.pi / margin for k in range(margin) for part in (0.15, 0.5, 0.85)])
    label = torch.arange(len(theta)) % CLASSES
    own = F.normalize(weight[label])
    across = torch.randn(len(theta), DIM, generator=generator, dtype=torch.float64)
    across = F.normalize(across - (across * own).sum(1, keepdim=True) * own)
    direction = theta.double().cos()[:, None] * own + theta.double().sin()[:, None] * across
    norm = 0.5 + 2 * torch.rand(len(theta), 1, generator=generator, dtype=torch.float64)
    return norm * direction, label, weight


def head_of(weight, margin, mixing=0.0):
    head = LSoftmaxHead(DIM, CLASSES, margin, lambda_min=mixing, annealed=False).double()
    head.weight.data.copy_(weight)
    return head


@pytest.mark.parametrize("margin", MARGINS)
def test_psi_is_the_definition_in_each_interval_and_at_the_ends(margin):
    theta = [(k + part) * math.pi / margin for k in range(margin) for part in (0.01, 0.3, 0.7, 0.99)]
    cosine = torch.tensor([math.cos(t) for t in theta], dtype=torch.float64)
    expected = torch.tensor([naive_psi(t, margin) for t in theta], dtype=torch.float64)
    torch.testing.assert_close(psi(cosine, margin), expected, atol=1e-12, rtol=0)
    ends = psi(torch.tensor([1.0, -1.0], dtype=torch.float64), margin)
    torch.testing.assert_close(ends, torch.tensor([1.0, 1.0 - 2 * margin], dtype=torch.float64))
    grid = psi(torch.linspace(math.pi, 0, 2001, dtype=torch.float64).cos(), margin)
    assert (grid.diff() > 0).all(), "it falls with the angle, without steps"
    assert grid.diff().max() < 0.01


@pytest.mark.parametrize("mixing", [0.0, 5.0])
@pytest.mark.parametrize("margin", MARGINS)
def test_logits_are_the_paper_s(margin, mixing):
    embedding, label, weight = sample(margin)
    output = head_of(weight, margin, mixing)(embedding, label)
    for row, (x, y) in enumerate(zip(embedding.tolist(), label.tolist(), strict=True)):
        for column, w in enumerate(weight.tolist()):
            norms = math.hypot(*x) * math.hypot(*w)
            cosine = sum(a * b for a, b in zip(x, w, strict=True)) / norms
            wanted = norms * cosine
            assert output.plain[row, column].item() == pytest.approx(wanted, abs=1e-12)
            if column == y:
                with_margin = norms * naive_psi(math.acos(cosine), margin)
                wanted = (mixing * wanted + with_margin) / (1 + mixing)
            assert output.logits[row, column].item() == pytest.approx(wanted, abs=1e-11)
            assert output.cosine[row, column].item() == pytest.approx(cosine, abs=1e-12)


@pytest.mark.parametrize("margin", MARGINS)
def test_the_gradient_is_the_derivative(margin):
    embedding, label, weight = sample(margin)
    head = head_of(weight, margin, 0.5)

    def loss(embedding, weight):
        logits = torch.func.functional_call(head, {"weight": weight}, (embedding, label)).logits
        return F.cross_entropy(logits, label)

    assert torch.autograd.gradcheck(loss, (embedding.requires_grad_(), weight.requires_grad_()))


def test_a_margin_of_1_is_the_softmax_without_a_bias():
    embedding, label, weight = sample(4)
    softmax = SoftmaxHead(DIM, CLASSES)
    softmax.weight.data.copy_(weight)
    gradients = []
    for head, dtype in ((head_of(weight, 1).float(), torch.float32), (softmax, torch.float32)):
        inputs = embedding.to(dtype).requires_grad_()
        output = head(inputs, label)
        gradients.append(
            (output.logits, *torch.autograd.grad(F.cross_entropy(output.logits, label), (inputs, head.weight)))
        )
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


def test_lambda_falls_by_the_released_schedule_down_to_its_least():
    assert annealed_lambda(0, 300, 0.0) == 1000.0
    # iteration 9,000 of 18,000: 1000 (1 + 0.225)^-35
    assert annealed_lambda(150, 300, 0.0) == pytest.approx(1000 * math.exp(-35 * math.log(1.225)), rel=1e-12)
    assert annealed_lambda(150, 300, 5.0) == 5.0
    model = build(CLASSES, 16, backbone={"depth": 10, "width": 0.05, "embedding_dim": DIM}, lambda_min=5.0)
    model.on_step(0, 300)
    assert model.head.mixing == 1000.0
    model.on_step(299, 300)
    assert model.head.mixing == 5.0
    direct = LSoftmaxHead(DIM, CLASSES, annealed=False)
    direct.on_step(0, 300)
    assert direct.mixing == 0.0


@pytest.mark.parametrize("margin", [0, 5, 1.5])
def test_another_margin_is_refused(margin):
    with pytest.raises(UserError, match="integer from 1 to 4"):
        LSoftmaxHead(DIM, CLASSES, margin)


def test_an_embedding_on_its_class_or_opposite_has_finite_gradients():
    weight = torch.eye(CLASSES, DIM, dtype=torch.float32)
    head = LSoftmaxHead(DIM, CLASSES, 4, annealed=False)
    head.weight.data.copy_(weight)
    embedding = torch.cat([2 * weight, -2 * weight]).requires_grad_()
    label = torch.arange(CLASSES).repeat(2)
    logits = head(embedding, label).logits
    torch.testing.assert_close(logits.diagonal(), torch.full((CLASSES,), 2.0))
    torch.testing.assert_close(logits[CLASSES:].diagonal(), torch.full((CLASSES,), -14.0))
    F.cross_entropy(logits, label).backward()
    assert torch.isfinite(embedding.grad).all() and torch.isfinite(head.weight.grad).all()
