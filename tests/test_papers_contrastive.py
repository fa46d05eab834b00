"""SimCLR and MoCo: their losses against loops in float64, the queue and the slow encoder step by step, the views."""

import math

import pytest
import torch
from torch.nn import functional as F

from replications import catalogue
from replications.errors import UserError
from replications.layers.images.contrastive import info_nce, nt_xent
from replications.layers.images.views import Views, colour_matrix, make_views, random_crops
from replications.papers.moco.model import MoCo
from replications.papers.simclr.model import SimCLR, build
from replications.training.loop import train
from replications.training.stage import Stage

ENCODER, DIM, BATCH = {"convolutions": [4, 8]}, 6, 4
CPU = torch.device("cpu")


def unit(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 5, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_simclr_s_loss_is_that_of_a_loop_over_views(temperature):
    one, other = unit(7, 0), unit(7, 1)
    views = [row for pair in zip(one, other, strict=True) for row in pair]  # 2k-1 and 2k are of one image
    total = 0.0
    for i, view in enumerate(views):
        partner = views[i + 1 if i % 2 == 0 else i - 1]
        others = sum(math.exp(float(view @ views[j]) / temperature) for j in range(14) if j != i)
        total -= math.log(math.exp(float(view @ partner) / temperature) / others)
    assert nt_xent(one, other, temperature)["loss"].item() == pytest.approx(total / 14, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_moco_s_loss_is_that_of_a_loop_over_the_queue(temperature):
    query, key, queue = unit(7, 0), unit(7, 1), unit(20, 2)
    total = 0.0
    for q, k in zip(query, key, strict=True):
        positive = math.exp(float(q @ k) / temperature)
        total -= math.log(positive / (positive + sum(math.exp(float(q @ n) / temperature) for n in queue)))
    assert info_nce(query, key, queue, temperature)["loss"].item() == pytest.approx(total / 7, rel=1e-12)


def moco(momentum=0.9, queue=8):
    torch.manual_seed(0)
    return MoCo(8, ENCODER, DIM, 0.2, Views((0.5, 1.0)), momentum=momentum, queue=queue)


def images(seed, count=BATCH):
    return {"image": torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1}


def test_the_queue_holds_the_last_keys_oldest_replaced_first():
    module, keys = moco(), []
    module.keys.register_forward_hook(lambda _, given, out: keys.append(out))
    for step in range(5):
        before = torch.cat([keys[0], keys[0]] if step == 1 else keys[-2:]) if keys else None
        if before is not None:
            assert torch.equal(module.queue.sort(0).values, before.sort(0).values)
        module(images(step))["loss"].backward()
    assert torch.equal(module.queue, torch.cat([keys[4], keys[3]])), "the fifth batch is where the first was"
    assert module.place == BATCH


def test_what_does_not_train_leaves_the_queue_alone():
    module = moco()
    module(images(0))
    before = module.queue.clone()
    with torch.no_grad():
        module(images(1))
    module.eval()(images(2))
    assert torch.equal(module.queue, before) and module.place == BATCH


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_key_encoder_follows_the_query_encoder(momentum):
    module = moco(momentum)
    start = [p.clone() for p in module.keys.parameters()]
    with torch.no_grad():
        for parameter in module.projected.parameters():
            parameter.add_(1.0)
    module.on_step(0, 10)
    for old, key, query in zip(start, module.keys.parameters(), module.projected.parameters(), strict=True):
        assert torch.allclose(key, momentum * old + (1 - momentum) * query, atol=1e-6)
        assert not key.requires_grad
    module(images(0))["loss"].backward()
    assert all(p.grad is None for p in module.keys.parameters())


class Images:
    """Four batches, over and over; the one of step `fails` is not there."""

    samples, batch_size = 4 * BATCH, BATCH

    def __init__(self, fails=None):
        self.fails = fails

    def batch(self, step, part=0, parts=1):
        if step == self.fails:
            raise KeyboardInterrupt
        return images(step % 4)


def test_the_queue_is_exact_across_a_resume(tmp_path):
    recipe = catalogue.resolve("moco/moco", "smoke", 0).recipe
    recipe = recipe.model_copy(update={"batch_size": BATCH, "steps": 7, "checkpoint_seconds": 0.0})
    whole, cut, again = moco(), moco(), moco()
    train(Stage("pretrain", whole, Images(), recipe), work=tmp_path / "whole", seed=3, device=CPU)
    with pytest.raises(KeyboardInterrupt):
        train(Stage("pretrain", cut, Images(fails=5), recipe), work=tmp_path / "cut", seed=3, device=CPU)
    result = train(Stage("pretrain", again, Images(), recipe), work=tmp_path / "cut", seed=3, device=CPU)
    assert result.resumed == 1 and whole.place == 7 * BATCH % 8
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        (3, "a queue of 3 keys is smaller than a batch of 4: raise option queue"),
        (10, "a queue of 10 keys is no multiple of a batch of 4: change option queue"),
        (0, "option queue must hold at least one key, not 0"),
    ],
)
def test_a_queue_that_does_not_fit_is_one_line(queue, message):
    with pytest.raises(UserError, match=message):
        moco(queue=queue)(images(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: moco(momentum=1.0), "option momentum must be at least 0 and below 1, not 1"),
        (lambda: SimCLR(8, ENCODER, DIM, 0.0, Views()), "option temperature must be above 0, not 0"),
        (lambda: make_views({"crops": [0.2, 1.0]}), r"option views has no 'crops'.*crop"),
        (lambda: make_views({"crop": [0.5, 0.2]}), r"views.crop must be two rising shares .*not \[0.5, 0.2\]"),
        (lambda: make_views({"grey": 2}), "views.grey is a probability, not 2"),
        (
            lambda: build(2, 8, encoder={"convolution": [4]}, views={}),
            "option encoder has no 'convolution'.*convolutions",
        ),
    ],
)
def test_an_option_that_makes_no_sense_is_one_line(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_crop_of_a_ramp_spans_its_share_and_half_of_them_are_mirrored():
    torch.manual_seed(0)
    size, n = 64, 400
    ramp = torch.linspace(0, 1, size).expand(n, 3, size, size)
    views = random_crops(ramp, (0.25, 0.25))[:, 0, 0]
    width = (views.amax(1) - views.amin(1)) * size / (size - 1)
    assert math.sqrt(0.25 * 3 / 4) - 0.03 < width.min() and width.max() < math.sqrt(0.25 * 4 / 3) + 0.03
    mirrored = (views[:, 0] > views[:, -1]).float().mean()
    assert 0.4 < mirrored < 0.6


def test_colour_matrices_keep_greys_and_luma():
    saturation, turn = torch.tensor([1.0, 0.0, 1.3, 1.0]), torch.tensor([0.0, 0.0, 0.7, math.pi])
    matrix = colour_matrix(saturation, turn)
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(matrix[0], torch.eye(3), atol=1e-5)
    assert torch.allclose(matrix[1], luma.expand(3, 3), atol=2e-3), "no saturation: grey"
    assert torch.allclose(matrix @ torch.ones(3), torch.ones(4, 3), atol=5e-3)
    assert torch.allclose(luma @ matrix, luma.expand(4, 3), atol=2e-3)


def test_views_differ_within_a_batch_and_repeat_with_the_seed():
    image, views = images(0)["image"][:1].expand(6, -1, -1, -1), Views()
    torch.manual_seed(1)
    one, other = views(image), views(image)
    torch.manual_seed(1)
    assert torch.equal(one, views(image)) and not torch.equal(one, other) and not torch.equal(one[0], one[1])
    assert one.abs().max() <= 1 and not one.requires_grad


def test_a_classifier_starts_from_the_encoder_and_sees_views_in_training_only():
    torch.manual_seed(0)
    classifier = build(3, 8, encoder=ENCODER, views={}, dim=DIM)
    pretrainer = classifier.pretrainer()
    classifier.start_from(pretrainer)
    image = images(0)["image"]
    classifier.eval(), pretrainer.eval()
    assert torch.equal(classifier.features(image), pretrainer.features(image))
    batch = {"image": image, "label": torch.tensor([0, 1, 2, 0])}
    assert torch.equal(classifier(batch)["loss"], classifier(batch)["loss"])
    classifier.train()
    assert not torch.equal(classifier(batch)["loss"], classifier(batch)["loss"])
