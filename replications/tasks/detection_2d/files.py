"""Training and test batches from image files of different sizes: decoded, resized and cropped by threads, then padded.

DETR's augmentation (Appendix A.4): a mirror image half of the time; then the shorter side at one of several lengths,
or, half of the time, first a random crop of the image at one of three other lengths. Boxes follow the image: what is
outside of the crop is cut off, and a box that is then empty is left out.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image

from replications.tasks.detection_2d.augment import normalised
from replications.tasks.detection_2d.data import DetectionSet, Targets, training_targets
from replications.tasks.detection_2d.options import DetectionOptions
from replications.training.batches import SampleOrder, part_of
from replications.training.determinism import generator_for
from replications.training.stage import Batch
from replications.training.workers import ReadAhead, Request

NUMBERS = 8  # random numbers that a sample may use
Sample = tuple[np.ndarray, np.ndarray, np.ndarray]  # image [h, w, 3], boxes cxcywh [n, 4], labels [n]


def resized_size(size: tuple[int, int], short: int, longest: int | None) -> tuple[int, int]:
    """Return width and height with the shorter side at `short`, or less, so that the longer is about `longest` at most.

    Rounded as in the authors' code (``datasets/transforms.py``): the shorter side to the nearest, the longer down.
    """
    least, most = min(size), max(size)
    if longest is not None and most / least * short > longest:
        short = round(longest * least / most)
    short = max(1, short)
    return (short, int(short * most / least)) if size[0] < size[1] else (int(short * most / least), short)


def resized(image: Image.Image, short: int, longest: int) -> np.ndarray:
    """Resize an image as `resized_size` says, bilinear with antialiasing, as in the authors' code: ``[h, w, 3]``."""
    return np.asarray(image.resize(resized_size(image.size, short, longest), Image.Resampling.BILINEAR))


def random_view(
    image: Image.Image, boxes: np.ndarray, labels: np.ndarray, numbers: Sequence[float], options: DetectionOptions
) -> Sample:
    """Return a training view of an image. `boxes` are ``xyxy`` as fractions ``[n, 4]``, `numbers` uniform in [0, 1)."""
    flip, crops, choice, before, crop_width, crop_height, left, top = numbers
    sides = options.train_sides or (options.short_side,)
    if flip < options.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    if options.crop and crops < 0.5:
        side = options.crop_sides[int(before * len(options.crop_sides))]
        width, height = resized_size(image.size, side, None)
        least, most = options.crop
        # torchvision's RandomSizeCrop of the official code: sides between `least` and the smaller of image and `most`.
        own_width = round(min(width, least) + crop_width * (min(width, most) - min(width, least)))
        own_height = round(min(height, least) + crop_height * (min(height, most) - min(height, least)))
        x, y = int(left * (width - own_width + 1)), int(top * (height - own_height + 1))
        box = np.array([x / width, y / height, (x + own_width) / width, (y + own_height) / height])
        image = image.crop(tuple(box * [*image.size, *image.size]))
        size = np.tile(box[2:] - box[:2], 2)
        boxes = np.clip((boxes - np.tile(box[:2], 2)) / size, 0, 1)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, labels = boxes[kept], labels[kept]
    return resized(image, sides[int(choice * len(sides))], options.long_side), _centred(boxes), labels


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def _centred(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def padded(samples: Iterable[Sample], device: torch.device) -> Batch:
    """Put samples together: images at the top left of one size, objects at the front of one length."""
    images, boxes, labels = zip(*samples, strict=True)
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    most = max(1, *(len(own) for own in labels))
    count = len(images)
    batch = {
        "image": torch.zeros(count, height, width, 3, dtype=torch.uint8),
        "padding": torch.ones(count, height, width, dtype=torch.bool),
        "boxes": torch.zeros(count, most, 4),
        "labels": torch.zeros(count, most, dtype=torch.int64),
        "valid": torch.zeros(count, most, dtype=torch.bool),
    }
    for row, (image, own, label) in enumerate(zip(images, boxes, labels, strict=True)):
        high, wide = image.shape[:2]
        batch["image"][row, :high, :wide] = torch.from_numpy(image.copy())
        batch["padding"][row, :high, :wide] = False
        batch["boxes"][row, : len(own)] = torch.from_numpy(own)
        batch["labels"][row, : len(own)] = torch.from_numpy(label)
        batch["valid"][row, : len(own)] = True
    return normalised({name: tensor.to(device) for name, tensor in batch.items()})


class FileBatches(ReadAhead):
    """Training batches (`replications.training.stage.Batches`) of a set of image files.

    The random numbers of a step are drawn for the whole batch from (seed, step), so a sample's view does not depend on
    how the batch is split.
    """

    def __init__(
        self,
        data: DetectionSet,
        rows: np.ndarray,
        options: DetectionOptions,
        batch_size: int,
        seed: int,
        device: torch.device,
    ):
        super().__init__(options.workers, options.workers)
        self.data, self.rows, self.options, self.device = data, rows, options, device
        self.samples, self.batch_size, self.seed = len(rows), batch_size, seed
        self._targets: Targets = training_targets(data, rows)
        self._order = SampleOrder(len(rows), batch_size, seed)

    def _job(self, request: Request) -> list[tuple[int, list[float]]]:
        step, part, parts = request
        generator = generator_for(self.seed, "augment", step)
        numbers = torch.rand(self.batch_size, NUMBERS, generator=generator)[part_of(self.batch_size, part, parts)]
        return list(zip(self._order.rows(step, part, parts).tolist(), numbers.tolist(), strict=True))

    def _read(self, job: list[tuple[int, list[float]]]) -> list[Sample]:
        return [self._sample(*one) for one in job]

    def _made(self, read: list[Sample], request: Request) -> Batch:
        return padded(read, self.device)

    def _sample(self, index: int, numbers: list[float]) -> Sample:
        valid = self._targets.valid[index]
        boxes, labels = _corners(self._targets.boxes[index][valid]), self._targets.labels[index][valid]
        return random_view(self.data.picture(self.rows[index]), boxes, labels, numbers, self.options)


def shown_batch(data: DetectionSet, rows: np.ndarray, options: DetectionOptions, device: torch.device) -> Batch:
    """Return images of rows at their test size, padded, with no objects."""
    none = np.zeros((0, 4)), np.zeros(0, np.int64)
    samples = ((resized(data.picture(row), options.short_side, options.long_side), *none) for row in rows)
    return padded(samples, device)
