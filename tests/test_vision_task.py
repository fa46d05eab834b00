"""Image classification: labels and their fractions, masks, probes and reconstructions, wrong options."""

import math

import numpy as np
import pytest
import torch

from replications.errors import UserError
from replications.layers.images.probes import LinearProbe, nearest_classes
from replications.layers.images.vision_transformer import (
    VisionTransformer,
    patchify,
    sincos_positions,
    unpatchify,
)
from replications.papers.mae.masking import check_masking, mask_noise
from replications.papers.mae.model import MaskedAutoencoder, build
from replications.papers.resnet.model import build as build_resnet
from replications.spec import Recipe
from replications.tasks.image_classification import TASK
from replications.tasks.image_classification.data import ImageSet, fraction_rows, transforms
from replications.tasks.image_classification.options import Augmentation
from replications.tasks.image_classification.pictures import hide
from replications.tasks.image_classification.rescore import rescore
from replications.tasks.image_classification.speed import speed_metrics
from replications.training.optim import create_optimizer, set_learning_rate

CPU = torch.device("cpu")
VIT = {"patch": 4, "width": 24, "depth": 2, "heads": 2}
DECODER = {"width": 16, "depth": 1, "heads": 2}


def image_set(counts, validation=0):
    label = np.concatenate([np.full(count, index) for index, count in enumerate(counts)]).astype(np.int32)
    split = np.zeros(len(label), np.int8)
    split[:validation] = 1
    names = tuple(f"class {index}" for index in range(len(counts)))
    return ImageSet("toy", {}, np.zeros((len(label), 4, 4, 3), np.uint8), label, split, names)


def autoencoder(**options):
    torch.manual_seed(0)
    return MaskedAutoencoder(16, decoder=DECODER, **VIT, **options)


# Labels


def test_fractions_take_the_same_share_of_each_class_and_lie_within_one_another():
    images = image_set([100, 40, 60])
    small, large, whole = (set(fraction_rows(images, f, seed=3)) for f in (0.1, 0.5, 1.0))
    assert small < large < whole and len(whole) == 200
    assert [int((images.label[list(small)] == c).sum()) for c in range(3)] == [10, 4, 6]
    assert small != set(fraction_rows(images, 0.1, seed=4))


def test_held_out_images_are_in_no_fraction():
    images = image_set([50, 50], validation=20)
    assert min(fraction_rows(images, 1.0, 0)) == 20


def test_a_class_with_no_image_in_a_fraction_is_named():
    with pytest.raises(UserError, match=r"class class 1 has no image in a fraction of 1 % of its 10 training images"):
        fraction_rows(image_set([100, 10]), 0.01, 0)


# Options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_sise": 24}, "image_sise: unknown key .*image_size"),
        ({"fractions": [0.1, 0.5]}, "fractions must rise and end with 1.0"),
        ({"fractions": [0.0, 1.0]}, "fractions.0: .*greater than 0"),
        ({"augmentation": {"flop": True}}, "augmentation.flop"),
    ],
)
def test_wrong_options_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        TASK.parse_options({"image_size": 24} | changes)


def test_an_image_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(UserError, match="an image of 22 pixels does not divide into patches of 4"):
        VisionTransformer(5, 22, **VIT)
    with pytest.raises(UserError, match=r"images are \(20, 20\), the network was built for 16 a side"):
        VisionTransformer(5, 16, **VIT).logits(torch.zeros(1, 3, 20, 20))


def test_images_smaller_than_the_network_are_refused():
    with pytest.raises(UserError, match="'image_size': 32 pixels, but the images are prepared at 24"):
        transforms(Augmentation(), 24, 32, 5)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5])
def test_mask_ratios_outside_0_and_1_are_refused(ratio):
    with pytest.raises(UserError, match="mask_ratio must be between 0 and 1"):
        build(5, 16, vit=VIT, decoder=DECODER, mask_ratio=ratio).pretrainer()


def test_masks_that_leave_nothing_are_refused():
    with pytest.raises(UserError, match=r"mask_ratio 0.95 leaves 0 of 16 patches visible"):
        autoencoder(mask_ratio=0.95)
    with pytest.raises(UserError, match="an even grid, not 5"):
        check_masking("grid", 0.75, 5)
    with pytest.raises(UserError, match=r"unknown mask 'blok'.*block"):
        autoencoder(mask="blok")


def test_wrong_networks_are_named():
    with pytest.raises(UserError, match=r"no size 'smal'.*small"):
        VisionTransformer(5, 16, size="smal")
    with pytest.raises(UserError, match="no residual network 'resnet19'"):
        build_resnet(5, 16, resnet={"architecture": "resnet19"})
    with pytest.raises(UserError, match="a width of 24 does not divide into 5 heads"):
        VisionTransformer(5, 16, **VIT | {"heads": 5})


# Masks


@pytest.mark.parametrize(("kind", "ratio"), [("random", 0.75), ("random", 0.4), ("block", 0.75), ("grid", 0.75)])
def test_every_image_keeps_equally_many_patches_and_the_loss_is_of_the_hidden_ones(kind, ratio):
    model = autoencoder(mask=kind, mask_ratio=ratio).double()
    image = torch.randn(5, 3, 16, 16, dtype=torch.double)
    noise = mask_noise(kind, 5, 4, CPU, torch.Generator().manual_seed(0))
    found = model.reconstruct(image, torch.Generator().manual_seed(0))
    prediction, _ = model.predict(image, noise)
    for i in range(5):
        visible = set(np.argsort(noise[i].numpy(), kind="stable")[: int(16 * (1 - ratio))].tolist())
        assert set(np.flatnonzero(~found.mask[i].flatten().numpy())) == visible
        errors = []
        for row in range(4):
            for column in range(4):
                if 4 * row + column not in visible:
                    patch = image[i, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].permute(1, 2, 0).flatten()
                    target = (patch - patch.mean()) / (patch.var(unbiased=True) + 1e-6).sqrt()
                    errors.append((prediction[i, 4 * row + column] - target).square().mean())
        assert float(found.loss[i]) == pytest.approx(torch.stack(errors).mean().item(), abs=1e-6)


def test_random_masks_hide_every_patch_equally_often_and_blocks_hang_together():
    def hidden(kind):
        noise = mask_noise(kind, 4000, 6, CPU, torch.Generator().manual_seed(0))
        return (noise.argsort(1).argsort(1) >= 9).view(-1, 6, 6).float()

    random, block = hidden("random"), hidden("block")
    assert random.mean(0).flatten().tolist() == pytest.approx([0.75] * 36, abs=0.03)
    edges = [(mask[:, 1:] != mask[:, :-1]).float().mean() for mask in (random, block)]
    assert edges[1] < 0.7 * edges[0]


def test_grid_masks_keep_one_of_each_square():
    noise = mask_noise("grid", 3, 6, CPU)
    kept = (noise.argsort(1).argsort(1) < 9).view(3, 3, 2, 3, 2)
    assert bool(kept[:, :, 0, :, 0].all())


def test_the_encoder_never_sees_a_hidden_patch():
    model, image = autoencoder(), torch.randn(1, 3, 16, 16)
    noise = torch.rand(1, 16)
    with torch.no_grad():
        before = model.predict(image, noise)[0]
        patches = patchify(image, 4)
        hidden = noise.argsort(1)[:, model.visible :]
        patches[0, hidden[0]] = 1e3
        assert torch.equal(model.predict(unpatchify(patches, 4, 4), noise)[0], before)


def test_mask_tokens_in_the_encoder_make_it_see_all_places_but_no_hidden_pixel():
    model, image, noise = autoencoder(mask_tokens_in_encoder=True), torch.randn(1, 3, 16, 16), torch.rand(1, 16)
    lengths = []
    model.blocks[0].register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[1]))
    patches = patchify(image, 4)
    with torch.no_grad():
        before = model.predict(image, noise)[0]
        patches[0, noise.argsort(1)[0, model.visible :]] = 1e3
        assert torch.equal(model.predict(unpatchify(patches, 4, 4), noise)[0], before)
    assert lengths == [17, 17]


def test_patches_are_rows_columns_channels_and_come_together_again():
    image = torch.arange(2 * 3 * 8 * 8).float().view(2, 3, 8, 8)
    patches = patchify(image, 4)
    assert torch.equal(patches[1, 2].view(4, 4, 3), image[1, :, 4:, :4].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, 4, 2), image)


def test_positions_follow_their_formula():
    table = sincos_positions(16, 3)[0].double()
    assert torch.count_nonzero(table[0]) == 0
    for row in range(3):
        for column in range(3):
            expected = []
            for place in (column, row):
                angles = [place / 10000 ** (k / 4) for k in range(4)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert table[1 + 3 * row + column].tolist() == pytest.approx(expected, abs=1e-6)


# Probes and cost


def test_nearest_neighbours_vote_as_in_a_plain_loop():
    torch.manual_seed(0)
    train, test, label = torch.randn(40, 6).double(), torch.randn(9, 6).double(), torch.arange(40) % 4
    told = nearest_classes(train, label, test, 4, neighbours=7, temperature=0.1)
    for i in range(9):
        cosine = [float(t @ test[i] / t.norm() / test[i].norm()) for t in train]
        votes = np.zeros(4)
        for index in np.argsort(cosine)[-7:]:
            votes[label[index]] += math.exp(cosine[index] / 0.1)
        assert int(told[i]) == int(votes.argmax())


def test_the_linear_probe_norms_without_weights_of_its_own():
    probe = LinearProbe(5, 3).double()
    assert [name for name, _ in probe.named_parameters()] == ["head.weight", "head.bias"]
    feature = 3 + 2 * torch.randn(50, 5, dtype=torch.double)
    normed = (feature - feature.mean(0)) / (feature.var(0, unbiased=False) + 1e-6).sqrt()
    assert torch.allclose(probe.train().logits(feature), probe.head(normed))


def test_layer_decay_slows_early_layers():
    model = VisionTransformer(5, 16, **VIT)
    recipe = Recipe(batch_size=4, steps=1, lr=1.0, optimizer="adamw", optimizer_options={"layer_decay": 0.5})
    optimizer = create_optimizer(model, recipe)
    set_learning_rate(optimizer, 1.0)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[id(model.head.weight)] == 1.0
    assert rate[id(model.blocks[1].mlp.fc1.weight)] > rate[id(model.blocks[0].mlp.fc1.weight)]
    assert rate[id(model.blocks[0].mlp.fc1.weight)] == pytest.approx(2 * rate[id(model.cls_token)])
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(model.cls_token)] == decay[id(model.blocks[0].norm1.weight)] == 0


def test_flops_at_the_papers_size_are_its_table_1c():
    saved = speed_metrics(build(5, 16, vit=VIT, decoder=DECODER, tell_speed=True).pretrainer(), 1, CPU)
    assert saved["flops_ratio"] == pytest.approx(3.3, abs=0.1)
    assert saved["speedup"] > 1.3
    assert speed_metrics(autoencoder(), 1, CPU) == {}


def test_flops_are_counted_where_no_time_is_taken():
    """Multiply-adds by hand, ViT-L/16 of 197 tokens and the decoder of eight blocks, with 50 and with 197 tokens."""

    def transformer(tokens, width, depth):
        return depth * (12 * tokens * width**2 + 2 * tokens**2 * width)

    def whole(tokens):
        ends = 196 * 512 * 768 + (tokens - 1) * 768 * 1024 + tokens * 1024 * 512
        return transformer(tokens, 1024, 24) + transformer(197, 512, 8) + ends

    saved = speed_metrics(build(5, 16, vit=VIT, decoder=DECODER, tell_speed=True).pretrainer(), 0, CPU)
    assert list(saved) == ["flops_ratio"]
    assert saved["flops_ratio"] == pytest.approx(whole(197) / whole(50), rel=0.01)


def test_stored_predictions_give_the_metrics():
    label = np.array([0, 1, 2, 3])
    top = np.array([[0, 1], [0, 1], [1, 2], [0, 1]])
    found = rescore({"test_label": label, "told_accuracy": top[:, 0], "told_accuracy_10pct": label, "top_classes": top})
    assert found == {"accuracy": 25.0, "accuracy_10pct": 100.0, "top5": 75.0}


def test_hidden_patches_are_grey_in_a_picture():
    mask = np.array([[True, False], [False, False]])
    shown = hide(np.full((4, 4, 3), 9, np.uint8), mask)
    assert (shown[:2, :2] == 128).all() and (shown[2:] == 9).all() and (shown[:, 2:] == 9).all()


def test_trials_are_scored_on_held_out_images():
    from types import SimpleNamespace

    from replications.tasks.image_classification.stages import ImageRun

    def scored(images, **options):
        return ImageRun(SimpleNamespace(), TASK.parse_options({"image_size": 4} | options), images).test_rows

    images = image_set([50, 50], validation=20)
    assert (scored(images, scored="validation") == np.arange(20)).all()
    images.split[90:] = 2
    assert (scored(images) == np.arange(90, 100)).all()
    with pytest.raises(UserError, match="nothing in its split 'validation'"):
        scored(image_set([50, 50]), scored="validation")


def test_steps_follow_fraction_and_length(tmp_path):
    from types import SimpleNamespace

    from replications.tasks.image_classification.stages import ImageRun

    options = TASK.parse_options({"image_size": 4, "lengthen": 2.5})
    run = ImageRun(SimpleNamespace(), options, image_set([100, 100]))
    recipe = Recipe(batch_size=10, epochs=20, lr=0.1)
    assert run._shortened(recipe, 1.0, 200).steps == 1000
    small = run._shortened(recipe, 0.04, 8)
    assert (small.steps, small.batch_size) == (200, 8)
    plain = ImageRun(SimpleNamespace(), TASK.parse_options({"image_size": 4}), image_set([100, 100]))
    assert plain._shortened(recipe, 1.0, 200) is recipe
