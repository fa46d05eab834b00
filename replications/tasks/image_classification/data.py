"""Prepared image sets, their splits, nested fractions of the labels, and what turns rows into training batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replications.datasets.registry import describe_set
from replications.errors import UserError
from replications.tasks.data import Splits, open_prepared
from replications.tasks.image_classification.options import Augmentation
from replications.training.augment import CentreCrop, Compose, HorizontalFlip, RandomCrop, RandomResizedCrop, ToFloat
from replications.training.enlarging import EnlargingCrop
from replications.training.mixing import Mix
from replications.training.photometric import ColourJitter, RandomErasing


@dataclass(frozen=True)
class ImageSet(Splits):
    """A prepared set: uint8 images ``[N, S, S, 3]``, int32 labels ``[N]``, and each image's split (`Splits`)."""

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


def open_images(key: str, data_root: Path, classes: int | None = None) -> ImageSet:
    """Open a prepared set, cut to its first `classes` classes; raises UserError where it is no image set."""
    found = open_prepared(key, data_root, "classified images", ("images", "label", "split"))
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

    Smaller fractions are contained in larger ones. Raises UserError for a class with no image in the fraction.
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
