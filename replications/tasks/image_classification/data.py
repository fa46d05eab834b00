"""Prepared image sets, their splits, nested fractions of the labels, and what turns rows into training batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from replications.datasets.arrays import open_set
from replications.datasets.registry import describe_set
from replications.errors import UserError
from replications.tasks.image_classification.options import Augmentation
from replications.training.augment import Compose, HorizontalFlip, RandomCrop, RandomResizedCrop, ToFloat
from replications.training.batches import DeviceBatches
from replications.training.enlarging import EnlargingCrop
from replications.training.mixing import Mix
from replications.training.photometric import ColourJitter, RandomErasing
from replications.training.stage import Batches
from replications.training.workers import WorkerBatches

SPLITS = {"train": 0, "validation": 1, "test": 2}
RESIDENT_FRACTION = 0.5


@dataclass(frozen=True)
class ImageSet:
    """A prepared set: uint8 images ``[N, S, S, 3]``, int32 labels ``[N]``, and each image's split (`SPLITS`)."""

    key: str
    about: Mapping[str, Any]
    images: np.ndarray
    label: np.ndarray
    split: np.ndarray
    names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        return self.images.shape[1]

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of a split, in the set's order."""
        return np.flatnonzero(self.split == SPLITS[split])


def open_images(key: str, data_root: Path, classes: int | None = None) -> ImageSet:
    """Open a prepared set, cut to its first `classes` classes; raises UserError where it is no image set."""
    found = open_set(key, data_root)
    missing = {"images", "label", "split"} - set(found.arrays)
    if missing:
        raise UserError(f"data set '{key}' has no array '{missing.pop()}': it is no set of classified images")
    label, split = np.asarray(found.arrays["label"]), np.array(found.arrays["split"])
    names = tuple(found.meta["facts"]["classes"])
    if classes is not None:
        if classes > len(names):
            raise UserError(f"task option 'classes': {classes} of {len(names)} classes of data set '{key}'")
        split[label >= classes] = -1
        names = names[:classes]
    return ImageSet(key, describe_set(key), found.arrays["images"], label, split, names)


def fraction_rows(images: ImageSet, fraction: float, seed: int) -> np.ndarray:
    """Return the training rows of a fraction of the labels: of each class the same share, rounded, drawn by `seed`.

    Smaller fractions lie within larger ones. Raises UserError for a class with no image in the fraction.
    """
    rows = images.rows("train")
    if fraction == 1.0:
        return rows
    shuffled = rows[np.random.default_rng([seed, 0]).permutation(len(rows))]
    chosen = []
    for index, name in enumerate(images.names):
        own = shuffled[images.label[shuffled] == index]
        count = round(fraction * len(own))
        if not count:
            raise UserError(
                f"data set '{images.key}': class {name} has no image in a fraction of {100 * fraction:g} % of its "
                f"{len(own)} training images (raise task option 'fractions')"
            )
        chosen.append(own[:count])
    return np.sort(np.concatenate(chosen))


def transforms(wanted: Augmentation, prepared: int, image_size: int, num_classes: int) -> Compose:
    """Return the augmentation as one transform: uint8 rows to float images, labels to targets where they soften.

    Raises UserError where images must be enlarged or shrunk without a random resized crop.
    """
    steps = []
    if wanted.crop_scale is not None:
        crop = EnlargingCrop if prepared <= image_size else RandomResizedCrop
        steps.append(crop(image_size, wanted.crop_scale))
    else:
        steps.append(CentreCrop(prepared, image_size))
    if wanted.shift:
        steps.append(RandomCrop(wanted.shift))
    if wanted.flip:
        steps.append(HorizontalFlip())
    if wanted.colour:
        steps.append(ColourJitter(wanted.colour))
    if wanted.erasing:
        steps.append(RandomErasing(wanted.erasing))
    steps.append(ToFloat())
    if wanted.softens:
        steps.append(Mix(num_classes, wanted.mixup, wanted.cutmix, wanted.smoothing))
    return Compose(steps)


class CentreCrop:
    """The middle ``size x size`` of images of `prepared` pixels; raises UserError where they are smaller."""

    def __init__(self, prepared: int, size: int):
        if size > prepared:
            raise UserError(f"task option 'image_size': {size} pixels, but the images are prepared at {prepared}")
        self.start, self.size = (prepared - size) // 2, size

    def __call__(self, image: Tensor) -> Tensor:
        span = slice(self.start, self.start + self.size)
        return image[:, span, span]

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {}

    def apply(self, batch: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**batch, "image": self(batch["image"])}


def plain_images(
    images: ImageSet, rows: np.ndarray, image_size: int, device: torch.device, to_float: ToFloat | None = None
) -> Tensor:
    """Return rows as a network sees them at test time: the middle, float ``[n, 3, image_size, image_size]``.

    Values lie in [-1, 1], unless `to_float` normalises otherwise.
    """
    batch = torch.from_numpy(np.ascontiguousarray(images.images[rows])).to(device)
    return (to_float or ToFloat())(CentreCrop(images.size, image_size)(batch))


def batches(
    images: ImageSet, rows: np.ndarray, augment: Compose, batch_size: int, seed: int, device: torch.device
) -> Batches:
    """Return training batches: on the device where the images fit in half of what is free, else read ahead."""
    needed = len(rows) * images.images[0].nbytes
    fits = needed < RESIDENT_FRACTION * free_bytes(device)
    arrays = {"image": images.images, "label": images.label.astype(np.int64)}
    return (DeviceBatches if fits else WorkerBatches)(arrays, batch_size, seed, augment, rows=rows, device=device)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free where training data would lie."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
