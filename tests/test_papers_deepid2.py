"""DeepID2: its verification signal against loops over pairs, the margin that follows, and the sum of both signals."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from replications.layers.faces.heads import SoftmaxHead
from replications.papers.deepid2.model import THRESHOLDS, DeepID2, L2Verifier, VerificationSignal

DIM, PEOPLE = 4, 5


def sample(batch=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(batch) % PEOPLE
    centre = torch.randn(PEOPLE, DIM, generator=generator, dtype=torch.float64)
    return centre[label] + 0.5 * torch.randn(batch, DIM, generator=generator, dtype=torch.float64), label


def pairs(feature, label):
    """Distances of pairs of a person, and of pairs of two people."""
    found = {True: [], False: []}
    for i in range(len(label)):
        for j in range(i):
            found[bool(label[i] == label[j])].append(float((feature[i] - feature[j]).norm()))
    return found[True], found[False]


@pytest.mark.parametrize("margin", [0.3, 1.5, 3.0])
def test_the_signal_is_the_paper_s_over_all_pairs(margin):
    feature, label = sample()
    signal = VerificationSignal().double().eval()
    signal.margin.fill_(margin)
    same, different = pairs(feature, label)
    together = sum(d**2 / 2 for d in same) / len(same)
    apart = sum(max(0.0, margin - d) ** 2 / 2 for d in different) / len(different)
    assert signal(feature, label).item() == pytest.approx((together + apart) / 2)


def test_the_signal_pulls_one_person_together_and_pushes_two_apart_within_the_margin():
    signal = VerificationSignal().eval()
    signal.margin.fill_(1.0)
    feature = torch.tensor([[0.0], [0.4], [3.0]], requires_grad=True)
    signal(feature, torch.tensor([0, 0, 1])).backward()
    assert feature.grad[0] < 0 < feature.grad[1] and feature.grad[2] == 0, "closer; the third is far enough"
    feature.grad = None
    signal(feature, torch.tensor([0, 1, 2])).backward()
    assert feature.grad[1] < 0 < feature.grad[0] and feature.grad[2] == 0, "a step against it moves them apart"


def test_images_at_the_same_place_have_a_finite_gradient():
    feature = torch.zeros(4, DIM, requires_grad=True)
    signal = VerificationSignal().eval()
    signal.margin.fill_(1.0)
    signal(feature, torch.tensor([0, 0, 1, 1])).backward()
    assert feature.grad.isfinite().all()


def test_the_margin_errs_least_and_moves_slowly():
    feature, label = sample()
    signal = VerificationSignal(momentum=0.75).double()
    signal(feature, label)
    same, different = pairs(feature, label)
    largest = max(same + different)

    def errors(t):
        return sum(d > t for d in same) / len(same) + sum(d <= t for d in different) / len(different)

    grid = [largest * i / (THRESHOLDS - 1) for i in range(THRESHOLDS)]
    first = signal.margin.item()
    assert errors(first) == pytest.approx(min(errors(t) for t in grid))
    signal(2 * feature, label)
    assert signal.margin.item() == pytest.approx(0.75 * first + 0.25 * 2 * first)
    before = signal.margin.clone()
    signal(feature[:PEOPLE], label[:PEOPLE])
    assert signal.margin == before, "no pair of a person: nothing to go by"
    signal.eval()(feature, label)
    assert signal.margin == before


def test_the_loss_is_identification_plus_lambda_times_verification():
    torch.manual_seed(0)
    image, (_, label) = torch.randn(12, 3, 2, 2), sample()
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, DIM))
    model = DeepID2(network, SoftmaxHead(DIM, PEOPLE), 0.3, True)
    found = model({"image": image, "label": label})
    feature = network(image)
    named = F.cross_entropy(F.linear(feature, model.head.weight, model.head.bias), label)
    signal = model.verification.eval()(feature, label)
    assert found["loss"].item() == pytest.approx((named + 0.3 * signal).item())
    alone = DeepID2(network, SoftmaxHead(DIM, PEOPLE), 1.0, False)
    alone.verification = model.verification
    assert alone({"image": image, "label": label})["loss"].item() == pytest.approx(signal.item())
    assert alone.class_weights() is None and not alone.head.weight.requires_grad


def test_l2_scores_are_minus_the_distance():
    feature, _ = sample()
    a, b = feature[:6].numpy(), feature[6:].numpy()
    expected = -(feature[:6] - feature[6:]).norm(dim=1)
    assert L2Verifier().score(a, b) == pytest.approx(expected.numpy())
