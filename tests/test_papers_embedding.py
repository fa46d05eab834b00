"""Ideas of JoSE, skip-gram and paragraph vectors: gradients, updates and losses against naive forms in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch.nn.functional import embedding, normalize

from replications.errors import UserError
from replications.layers.embedding.sphere import on_sphere, retract, tangent, uniform_on_sphere
from replications.papers.jose import model as jose
from replications.papers.paragraph_vector import model as paragraph_vector
from replications.papers.skip_gram import model as skip_gram


def batch_of(size=7, vocabulary=11, documents=5, negatives=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(most, *shape):
        return torch.randint(most, shape, generator=generator)

    batch = {
        "center": draw(vocabulary, size),
        "context": draw(vocabulary, size),
        "document": draw(documents, size),
        "noise": draw(vocabulary, size, negatives),
        "valid": (torch.rand(size, generator=generator) < 0.7).double(),
    }
    batch["noise"][0, 0] = batch["center"][0]
    batch["valid"][:2] = torch.tensor([1.0, 0.0])
    return batch


def randomised(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


# The sphere


def test_the_gradient_on_the_sphere_is_autograds_projected_one():
    model = randomised(jose.build(11, 5, dim=6, modified=False, margin=0.5))
    model.on_step(0, 1)
    batch = batch_of()
    model(batch)["loss"].backward()
    free = randomised(jose.build(11, 5, dim=6, spherical=False, margin=0.5))
    free.load_state_dict(model.state_dict())
    free(batch)["loss"].backward()
    for own, plain in zip(model.parameters(), free.parameters(), strict=True):
        projector = torch.eye(6) - own.detach()[:, :, None] * own.detach()[:, None]
        expected = (projector @ plain.grad[:, :, None])[:, :, 0]
        assert torch.allclose(own.grad, expected, atol=1e-14) and expected.abs().max() > 0.01
        assert (own.grad * own).sum(1).abs().max() < 1e-14


def test_the_projected_gradient_is_the_one_of_the_normalised_vector():
    x = normalize(torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1)
    target = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    free = x.clone().requires_grad_()
    (normalize(free, dim=1) * target).sum().backward()
    assert torch.allclose(tangent(x, target, False), free.grad, atol=1e-14)


def test_the_modified_gradient_has_the_cosine_distance_as_its_factor():
    """As in the paper's figure 1: two descents with the same projection, of which the farther one moves more."""
    x = torch.tensor([[1.0, 0.0]] * 4, dtype=torch.float64)
    degrees = torch.tensor([0.0, 60.0, 120.0, 180.0], dtype=torch.float64)
    towards = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], 1)
    found = tangent(x, -towards, True)
    length = found.norm(dim=1)
    expected = [0.0, math.sin(math.pi / 3) * 0.5, math.sin(math.pi / 3) * 1.5, 0.0]
    assert length.tolist() == pytest.approx(expected, abs=1e-12)
    zero = tangent(x, torch.zeros_like(x), True)
    assert torch.equal(zero, torch.zeros_like(x))


def test_steps_keep_the_norm_and_the_gradient_reaches_through_a_lookup():
    weight = uniform_on_sphere(9, 5)
    index = torch.tensor([1, 1, 3])
    start = weight.detach().clone()
    for _ in range(20):
        weight.grad = None
        embedding(index, on_sphere(weight, False)).sum().backward()
        weight.data -= 0.2 * weight.grad
        retract(weight)
        assert (weight.norm(dim=1) - 1).abs().max() < 1e-6
    rest = [0, 2, 4, 5, 6, 7, 8]
    assert torch.allclose(weight[rest], start[rest], atol=1e-6)
    against = -normalize(torch.ones(5), dim=0)
    assert torch.allclose(weight[[1, 3]], against.expand(2, 5), atol=1e-3)


# JoSE


def naive_jose(model, batch, joint):
    total = 0.0
    u, v = model.center, model.context
    for i in range(len(batch["center"])):
        own, valid = batch["center"][i], batch["valid"][i]
        for other in batch["noise"][i]:
            if other == own or (not joint and not valid):
                continue
            loss = torch.tensor(model.margin, dtype=torch.float64)
            if valid:
                loss = loss - v[batch["context"][i]] @ u[own] + v[batch["context"][i]] @ u[other]
            if joint:
                d = model.document[batch["document"][i]]
                loss = loss - u[own] @ d + u[other] @ d
            total = total + max(loss, torch.zeros(()))
    return total / len(batch["center"])


@pytest.mark.parametrize("joint", [True, False])
def test_joses_loss_is_the_papers_hinge(joint):
    model = randomised(jose.build(11, 5, dim=6, joint=joint, margin=0.5))
    model.on_step(0, 1)
    assert model(batch_of())["loss"].item() == pytest.approx(naive_jose(model, batch_of(), joint).item(), abs=1e-12)


def test_two_hinges_are_one_for_the_context_and_one_for_the_document():
    model = randomised(jose.build(11, 5, dim=6, margin=0.5, hinges="two"))
    model.on_step(0, 1)
    batch, total = batch_of(), 0.0
    u, v, d = model.center, model.context, model.document
    for i in range(len(batch["center"])):
        own = batch["center"][i]
        vectors = [d[batch["document"][i]], *([v[batch["context"][i]]] if batch["valid"][i] else [])]
        for other in batch["noise"][i]:
            for shared in vectors:
                total += 0 if other == own else max(model.margin - shared @ u[own] + shared @ u[other], torch.zeros(()))
    assert model(batch)["loss"].item() == pytest.approx(float(total) / len(batch["center"]), abs=1e-12)
    with pytest.raises(UserError, match="give one or two"):
        jose.build(11, 5, dim=6, hinges="three")


def test_one_pair_moves_as_the_authors_positive_word_does():
    """The center's step is alpha (1 - cos(v, u)) (v - cos(v, u) u), then it is normalised."""
    model = randomised(jose.build(3, 1, dim=4, joint=False, negatives=1, margin=3.0))
    model.on_step(0, 1)
    batch = {"center": torch.tensor([0]), "context": torch.tensor([1]), "document": torch.tensor([0]),
             "noise": torch.tensor([[2]]), "valid": torch.ones(1, dtype=torch.float64)}  # fmt: skip
    u, v = model.center[0].detach().clone(), model.context[1].detach().clone()
    f, alpha = (u @ v), 0.3
    expected = u + alpha * (1 - f) * (v - f * u)
    model(batch)["loss"].backward()
    model.center.data -= alpha * model.center.grad
    model.on_step(1, 2)
    assert torch.allclose(model.center[0], expected / expected.norm(), atol=1e-12)


# Negative sampling


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_negative_sampling_is_the_naive_loop():
    """Loss and gradient: word2vec's update is (label - s(h o)) times the other vector."""
    model = randomised(skip_gram.build(11, 5, dim=6))
    batch = batch_of()
    found = model(batch)["loss"]
    found.backward()
    total, size = 0.0, len(batch["center"])
    gradient = {"input": np.zeros((11, 6)), "output": np.zeros((11, 6))}
    inputs, outputs = model.input.detach().numpy(), model.output.detach().numpy()
    for i in range(size):
        if not batch["valid"][i]:
            continue
        given, word = batch["context"][i].item(), batch["center"][i].item()
        for label, target in [(1, word), *((0, n) for n in batch["noise"][i].tolist() if n != word)]:
            score = sigmoid(inputs[given] @ outputs[target])
            total -= math.log(score if label else 1 - score) / size
            gradient["input"][given] -= (label - score) * outputs[target] / size
            gradient["output"][target] -= (label - score) * inputs[given] / size
    assert found.item() == pytest.approx(total, rel=1e-12)
    assert np.allclose(model.input.grad, gradient["input"], atol=1e-14)
    assert np.allclose(model.output.grad, gradient["output"], atol=1e-14)


def test_a_paragraph_vector_adds_the_documents_loss():
    alone = randomised(paragraph_vector.build(11, 5, dim=6, words=False))
    both = randomised(paragraph_vector.build(11, 5, dim=6))
    words = randomised(skip_gram.build(11, 5, dim=6))
    with torch.no_grad():
        both.document.copy_(alone.document)
        both.output.copy_(alone.output)
        words.input.copy_(both.input)
        words.output.copy_(alone.output)
    batch = batch_of()
    total = alone(batch)["loss"] + words(batch)["loss"]
    assert both(batch)["loss"].item() == pytest.approx(total.item(), rel=1e-12)
    assert alone.word_vectors() is None


def test_vectors_start_as_in_word2vec():
    model = skip_gram.build(1000, 5, dim=10)
    assert not model.output.any() and model.input.abs().max() <= 0.05
    assert model.input.std().item() == pytest.approx(0.1 / math.sqrt(12), rel=0.05)
    assert skip_gram.build(1000, 5, dim=10, spread=4.0).input.abs().max() > 1.9


def test_a_bag_of_words_is_damped_by_how_many_documents_have_a_word():
    counts = csr_array(np.array([[2.0, 0, 1], [0, 1, 1], [0, 0, 0]]))
    found = paragraph_vector.build_bag(3, 3).document_vectors(counts).toarray()
    rare, everywhere = math.log(4 / 2) + 1, math.log(4 / 3) + 1
    first = np.array([(1 + math.log(2)) * rare, 0, everywhere])
    assert np.allclose(found[0], first / np.linalg.norm(first))
    assert not found[2].any()
