"""Colour jitter, erasing, mixup and cutmix: against plain loops and torchvision, and however a batch is split."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as TF

from replications.errors import UserError
from replications.tasks.image_classification.data import transforms
from replications.tasks.image_classification.options import Augmentation
from replications.training.augment import RandomResizedCrop
from replications.training.batches import DeviceBatches
from replications.training.enlarging import EnlargingCrop
from replications.training.mixing import Mix
from replications.training.photometric import ColourJitter, RandomErasing
from replications.training.workers import WorkerBatches

CLASSES = 5
CHANGES = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)
EVERYTHING = Augmentation(crop_scale=(0.3, 1.0), shift=1, colour=0.4, erasing=0.5, mixup=0.8, cutmix=1.0, smoothing=0.1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, size=16, seed=0):
    return torch.randint(256, (n, size, size, 3), generator=generator(seed), dtype=torch.uint8)


def float_batch(n, size=8):
    image = torch.rand(n, 3, size, size, generator=generator(1))
    return {"image": image, "label": torch.arange(n) % CLASSES}


def test_jitter_is_torchvisions_with_the_same_factors():
    jitter, image = ColourJitter(0.5), images(6)
    draws = jitter.draw(6, generator())
    ours = jitter.apply({"image": image}, draws)["image"]
    assert ours.dtype == torch.uint8
    for own, original, factors in zip(ours, image, draws["factor"].tolist(), strict=True):
        expected = original.permute(2, 0, 1).float() / 255
        for change, factor in zip(
            (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation), factors, strict=True
        ):
            expected = change(expected, factor)
        assert (own.permute(2, 0, 1).float() - expected * 255).abs().max() <= 0.52


def test_jitter_reaches_both_ends_and_no_further():
    factor = ColourJitter(0.3).draw(4000, generator())["factor"]
    assert 0.7 <= factor.min() < 0.71 and 1.29 < factor.max() <= 1.3
    assert factor.mean(0) == pytest.approx([1.0] * 3, abs=0.02)


def test_erasing_paints_one_rectangle_in_one_colour_as_often_as_asked():
    erasing, image = RandomErasing(0.4), torch.full((2000, 16, 16, 3), 7, dtype=torch.uint8)
    draws = erasing.draw(2000, generator())
    draws["colour"][draws["colour"] == 7] = 8
    painted = (erasing.apply({"image": image}, draws)["image"] != 7).any(-1)
    touched = painted.flatten(1).any(1)
    assert torch.equal(touched, draws["erase"])
    assert float(touched.float().mean()) == pytest.approx(0.4, abs=0.04)
    share = painted[touched].float().mean((1, 2))
    assert float(share.mean()) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    rows, columns = painted[touched].any(2), painted[touched].any(1)
    assert torch.equal(painted[touched], rows[:, :, None] & columns[:, None, :])  # a full rectangle


@pytest.mark.parametrize(("height", "width", "size"), [(16, 16, 16), (13, 9, 21), (24, 24, 24)])
def test_enlarging_crops_are_the_antialiased_ones(height, width, size):
    image = torch.randint(256, (40, height, width, 3), generator=generator(), dtype=torch.uint8)
    crops = [kind(size, (0.1, 1.0)) for kind in (RandomResizedCrop, EnlargingCrop)]
    draws = crops[0].draw(40, generator(1))
    slow, fast = (crop.apply({"image": image}, draws)["image"].int() for crop in crops)
    assert (slow - fast).abs().max() <= 1  # a half may be rounded either way
    assert float((slow != fast).float().mean()) < 0.01
    with pytest.raises(UserError, match="may shrink them"):
        EnlargingCrop(8).apply({"image": image}, draws)


def test_mixing_is_what_the_papers_say():
    mix, batch = Mix(CLASSES, 0.8, 1.0, smoothing=0.1), float_batch(8)
    draws = mix.draw(8, generator(3))
    assert bool(draws["cut"].any()) and not bool(draws["cut"].all())
    mixed = mix.apply(batch, draws)
    assert set(mixed) == {"image", "target"}
    hot = np.eye(CLASSES)[batch["label"]] * 0.9 + 0.1 / CLASSES
    for i in range(8):
        j, lam = i ^ 1, float(draws["lam"][i])
        expected = batch["image"][i].double().clone()
        if draws["cut"][i]:
            side = int((1 - lam) ** 0.5 * 8)
            row, column = (int(c * 8) for c in draws["centre"][i])
            box = [slice(max(0, middle - side // 2), min(8, middle + side // 2)) for middle in (row, column)]
            expected[:, box[0], box[1]] = batch["image"][j][:, box[0], box[1]].double()
            lam = 1 - (box[0].stop - box[0].start) * (box[1].stop - box[1].start) / 64
        else:
            expected = lam * expected + (1 - lam) * batch["image"][j].double()
        assert torch.allclose(mixed["image"][i].double(), expected, atol=1e-6)
        assert mixed["target"][i].numpy() == pytest.approx(lam * hot[i] + (1 - lam) * hot[j], abs=1e-6)


def test_without_mixing_targets_are_smoothed_labels():
    batch = float_batch(6)
    mix = Mix(CLASSES, 0.0, 0.0, smoothing=0.1)
    mixed = mix.apply(batch, mix.draw(6, generator()))
    logits = torch.randn(6, CLASSES)
    ours = F.cross_entropy(logits, mixed["target"])
    assert float(ours) == pytest.approx(float(F.cross_entropy(logits, batch["label"], label_smoothing=0.1)), abs=1e-6)
    assert torch.equal(mixed["image"], batch["image"])


def test_lambda_is_beta_distributed():
    lam = Mix(CLASSES, mixup=0.8, cutmix=0.0).draw(20_000, generator())["lam"].double()
    assert float(lam.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(lam.var()) == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.003)


def test_the_last_of_an_odd_batch_stays_itself_and_odd_parts_are_refused():
    mix, batch = Mix(CLASSES, 1.0, 0.0), float_batch(5)
    draws = mix.draw(5, generator())
    mixed = mix.apply(batch, draws)
    assert torch.allclose(mixed["image"][4], batch["image"][4])
    part = {name: value[:3] for name, value in draws.items()}
    with pytest.raises(UserError, match="parts of a batch must be even, not 3"):
        mix.apply({name: value[:3] for name, value in batch.items()}, part)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_device_and_worker_path_give_the_same_images_however_a_batch_is_split(parts):
    arrays = {"image": images(40).numpy(), "label": (np.arange(40) % CLASSES).astype(np.int64)}
    augment = transforms(EVERYTHING, 16, 12, CLASSES)
    device = DeviceBatches(arrays, 16, 5, augment)
    workers = WorkerBatches(arrays, 16, 5, augment, workers=2, ahead=2)
    workers.begin(8, range(parts))
    try:
        for step in (0, 1, 7):
            whole = device.batch(step)
            assert whole["image"].shape == (16, 3, 12, 12) and whole["target"].shape == (16, CLASSES)
            split = [workers.batch(step, part, parts) for part in range(parts)]
            for name, value in whole.items():
                assert torch.equal(torch.cat([part[name] for part in split]), value), name
    finally:
        workers.end()
