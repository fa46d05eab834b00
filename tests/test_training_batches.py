import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as reference
from training_toys import AUGMENT, BATCH, SAMPLES, SIZE, arrays

from replications.errors import UserError
from replications.training.augment import Compose, HorizontalFlip, RandomCrop, RandomResizedCrop, ToFloat
from replications.training.batches import DeviceBatches, SampleOrder
from replications.training.determinism import derive_seed, generator_for
from replications.training.workers import WorkerBatches


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_visits_each_sample_at_most_once_and_full_batches_only(samples, batch_size, seed, epoch):
    if batch_size > samples:
        with pytest.raises(UserError, match="larger than the training set"):
            SampleOrder(samples, batch_size, seed)
        return
    order = SampleOrder(samples, batch_size, seed)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    rows = torch.cat([order.rows(step, 0, 1) for step in steps]).tolist()
    assert len(rows) == len(set(rows)) == samples // batch_size * batch_size
    assert sorted(order.permutation(epoch).tolist()) == list(range(samples))


def test_order_depends_on_seed_and_epoch_and_on_nothing_else():
    order = SampleOrder(50, 10, seed=3)
    first = [order.rows(step, 0, 1).tolist() for step in range(12)]
    backwards = [order.rows(step, 0, 1).tolist() for step in reversed(range(12))][::-1]
    torch.manual_seed(99)
    assert first == backwards == [SampleOrder(50, 10, seed=3).rows(step, 0, 1).tolist() for step in range(12)]
    assert first[0] != first[5]  # the next epoch
    assert first[0] != SampleOrder(50, 10, seed=4).rows(0, 0, 1).tolist()


def test_seeds_are_the_same_on_every_machine_and_keep_words_apart():
    assert derive_seed(0, "order", 1) == 3583953554662909129
    assert len({derive_seed(1, 23), derive_seed(12, 3), derive_seed("1", 23), derive_seed(1, "23")}) == 4


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_are_slices_of_the_whole_batch_with_the_same_augmentation(parts):
    batches = DeviceBatches(arrays(), BATCH, seed=1, augment=AUGMENT)
    for step in (0, 7):
        whole = batches.batch(step)
        processes = [DeviceBatches(arrays(), BATCH, seed=1, augment=AUGMENT) for _ in range(parts)]
        pieces = [process.batch(step, part, parts) for part, process in enumerate(processes)]
        for name in whole:
            assert torch.equal(whole[name], torch.cat([piece[name] for piece in pieces]))
    with pytest.raises(UserError, match="equal parts"):
        batches.batch(0, 0, 3)


def test_augmentation_differs_by_step_and_seed():
    data = {"image": arrays()["image"][:BATCH], "label": arrays()["label"][:BATCH]}  # one batch an epoch
    unshuffled = [
        DeviceBatches(data, BATCH, seed, AUGMENT).batch(step)["image"].sum(0) for seed, step in ((0, 0), (0, 1), (1, 0))
    ]
    assert not torch.equal(unshuffled[0], unshuffled[1])
    assert not torch.equal(unshuffled[0], unshuffled[2])


def test_rows_pick_the_samples():
    rows = np.arange(20, 60)
    batches = DeviceBatches(arrays(), 8, seed=0, rows=rows)
    seen = torch.cat([batches.batch(step)["image"] for step in range(5)])
    expected = arrays()["image"][20:60]
    assert sorted(map(hash, map(bytes, seen.numpy()))) == sorted(map(hash, map(bytes, expected.numpy())))


def test_arrays_of_different_length_are_refused():
    with pytest.raises(UserError, match="one common length"):
        DeviceBatches({"image": torch.zeros(4, 2), "label": torch.zeros(5)}, 2, seed=0)


@pytest.fixture
def mapped(tmp_path):
    """The toy arrays as read-only memory maps."""
    for name, array in arrays().items():
        np.save(tmp_path / f"{name}.npy", array.numpy())
    return {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in arrays()}


@pytest.mark.parametrize("parts", [1, 2])
def test_workers_give_the_batches_of_the_device(mapped, parts):
    rows = np.arange(5, SAMPLES)
    on_device = DeviceBatches(mapped, BATCH, 0, AUGMENT, rows=rows)
    workers = WorkerBatches(mapped, BATCH, 0, AUGMENT, rows=rows, workers=2, ahead=3)
    workers.begin(15, range(parts))
    # In order over an epoch's end, then a jump back, then a jump ahead, then the last step.
    for step in (*range(9), 2, 3, 12, 14):
        for part in range(parts):
            one, other = on_device.batch(step, part, parts), workers.batch(step, part, parts)
            assert all(torch.equal(one[name], other[name]) for name in one)
    workers.end()


def test_workers_read_ahead_what_will_be_asked_for_and_no_more(mapped):
    workers = WorkerBatches(mapped, BATCH, 0, workers=1, ahead=3)
    workers.begin(5, range(2, 4))  # the second of two processes, two micro-batches each
    workers.batch(1, 2, 4)
    assert [request for request, _ in workers._pending] == [(1, 3, 4), (2, 2, 4), (2, 3, 4)]
    asked = [(step, part) for step in range(1, 5) for part in (2, 3)][1:]
    pool = workers._pool
    for step, part in asked:
        workers.batch(step, part, 4)
    assert workers._pool is pool and not workers._pending
    workers.end()


def test_a_single_batch_starts_no_reading_ahead(mapped):
    """One batch is asked for where a step is timed or its FLOPs are counted: threads would disturb that."""
    workers = WorkerBatches(mapped, BATCH, 0, AUGMENT)
    one, other = workers.batch(3), DeviceBatches(mapped, BATCH, 0, AUGMENT).batch(3)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert workers._pool is None and not workers._pending


def test_workers_report_a_failed_read(mapped):
    workers = WorkerBatches(mapped, BATCH, 0, workers=1)
    workers.begin(2, range(1))
    workers.arrays["label"] = object()
    with pytest.raises(AttributeError):
        workers.batch(0)
    workers.end()
    with pytest.raises(UserError, match="training rows reach"):
        WorkerBatches(mapped, 2, 0, rows=np.array([0, SAMPLES, 3]))


def images(n: int = 6, height: int = 9, width: int = 7) -> torch.Tensor:
    return torch.randint(256, (n, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_flip_mirrors_the_drawn_samples_only():
    image = images()
    flip = torch.tensor([True, False, True, False, False, True])
    out = HorizontalFlip().apply({"image": image}, {"flip": flip})["image"]
    assert torch.equal(out[flip], image[flip][:, :, range(6, -1, -1)])
    assert torch.equal(out[~flip], image[~flip])
    rate = HorizontalFlip(0.25).draw(20000, generator_for(0))["flip"].float().mean()
    assert abs(rate - 0.25) < 0.02


def test_crop_is_pad_and_cut():
    image, padding = images(), 2
    shift = RandomCrop(padding).draw(6, generator_for(5))["shift"]
    assert shift.min() >= -padding and shift.max() <= padding
    out = RandomCrop(padding).apply({"image": image}, {"shift": shift})["image"]
    padded = torch.nn.functional.pad(image, (0, 0, padding, padding, padding, padding))
    for sample, (y, x) in enumerate((shift + padding).tolist()):
        assert torch.equal(out[sample], padded[sample, y : y + 9, x : x + 7])


def test_resized_crop_is_torchvisions():
    image, crop = images(16, 40, 32), RandomResizedCrop(12, scale=(0.1, 1.0))
    draws = crop.draw(16, generator_for(2))
    out = crop.apply({"image": image}, draws)["image"]
    area, ratio = draws["area"] * 40 * 32, draws["ratio"]
    for sample in range(16):
        height = int((area / ratio).sqrt().round().clamp(1, 40)[sample])
        width = int((area * ratio).sqrt().round().clamp(1, 32)[sample])
        top = int(draws["position"][sample, 0] * (40 - height + 1))
        left = int(draws["position"][sample, 1] * (32 - width + 1))
        chw = image[sample].permute(2, 0, 1).float()
        theirs = reference.resized_crop(chw, top, left, height, width, [12, 12], antialias=True)
        assert (out[sample].permute(2, 0, 1).float() - theirs).abs().max() <= 0.51  # ours is rounded


def test_to_float_maps_to_minus_one_to_one_in_channels_last():
    out = ToFloat()(images(2))
    assert out.shape == (2, 3, 9, 7) and out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, images(2).permute(0, 3, 1, 2) / 127.5 - 1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = reference.normalize(images(2).permute(0, 3, 1, 2) / 255, mean, std)
    torch.testing.assert_close(ToFloat(mean, std)(images(2)), theirs)


def test_composed_transforms_keep_their_numbers_apart():
    two_flips = Compose([HorizontalFlip(), HorizontalFlip()])
    draws = two_flips.draw(64, generator_for(0))
    assert set(draws) == {"0.flip", "1.flip"} and not torch.equal(draws["0.flip"], draws["1.flip"])
    image = torch.arange(64 * SIZE * 3).reshape(64, 1, SIZE, 3)
    out = two_flips.apply({"image": image}, draws)["image"]
    once = draws["0.flip"] ^ draws["1.flip"]
    assert torch.equal(out, torch.where(once[:, None, None, None], image.flip(2), image))
