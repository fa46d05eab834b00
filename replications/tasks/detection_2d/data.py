"""Detection sets: images, and the objects in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from replications.errors import UserError
from replications.tasks.data import Splits, open_prepared

ARRAYS = ("image_id", "image_size", "split", "boxes", "labels", "crowd", "area")


@dataclass(frozen=True)
class DetectionSet(Splits):
    """A prepared set of `N` images with up to `T` objects each (see `replications.datasets.detection.form`).

    Boxes are ``xyxy`` in pixels of the original image, as annotated: they may reach out of it or be empty. Labels
    count the classes from 0; -1 is no object. `images` are the pictures where all are of one size, `files` and
    `file_start` their files where they are not. `masks` has the bits of each object's mask, where there are masks.
    """

    key: str
    about: dict[str, Any]
    classes: list[str]
    category_ids: list[int]
    area_limits: tuple[float, float]
    image_id: np.ndarray  # int64 [N]
    image_size: np.ndarray  # int32 [N, 2], height and width
    split: np.ndarray  # int8 [N]
    boxes: np.ndarray  # float32 [N, T, 4]
    labels: np.ndarray  # int16 [N, T]
    crowd: np.ndarray  # bool [N, T]
    area: np.ndarray  # float32 [N, T]
    images: np.ndarray | None  # uint8 [N, S, S, 3]
    files: np.ndarray | None  # uint8 [bytes]
    file_start: np.ndarray | None  # int64 [N + 1]
    masks: np.ndarray | None  # uint8 [N, T, S * S / 8]

    def picture(self, row: int) -> Image.Image:
        """Decode the image of a row."""
        if self.images is not None:
            return Image.fromarray(np.asarray(self.images[row]))
        from replications.datasets.decoding import decode

        data = bytes(self.files[self.file_start[row] : self.file_start[row + 1]])
        return decode(data, f"image {self.image_id[row]} of '{self.key}'")

    def unpacked_masks(self, row: int) -> np.ndarray:
        """Return the masks of a row, bool ``[T, S, S]``."""
        height, width = self.image_size[row]
        return np.unpackbits(self.masks[row], axis=-1, count=height * width).reshape(-1, height, width).astype(bool)


def open_detection_set(key: str, data_root: Path) -> DetectionSet:
    """Open a prepared set; raises UserError where it is missing (with how to prepare it) or of another kind."""
    from replications.datasets.registry import describe_set

    prepared = open_prepared(key, data_root, "images with boxes", ARRAYS)
    arrays, facts = prepared.arrays, prepared.meta["facts"]
    if not ("images" in arrays or "files" in arrays):
        raise UserError(f"data set '{key}' is not a set of images with boxes: it has no 'images'")
    return DetectionSet(
        key=key,
        about=describe_set(key),
        classes=facts["classes"],
        category_ids=facts["category_ids"],
        area_limits=tuple(facts["area_limits"]),
        **{name: arrays[name] for name in ARRAYS},
        **{name: arrays.get(name) for name in ("images", "files", "file_start", "masks")},
    )


@dataclass(frozen=True)
class Targets:
    """Training targets of rows of a set: real objects first, then padding.

    As in the official code, boxes are cut to the image, and those that are then empty are left out, as are crowds.
    `boxes` float32 ``[n, T, 4]`` are ``cxcywh`` as fractions of the image, `labels` int64 and `valid` bool ``[n, T]``,
    `place` int64 ``[n, T]`` says which of the set's objects it is.
    """

    boxes: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    place: np.ndarray


def training_targets(data: DetectionSet, rows: np.ndarray) -> Targets:
    """Return the targets of rows, as wide as the row with most objects (at least one place)."""
    size = np.asarray(data.image_size[rows], np.float32)[:, None, [1, 0, 1, 0]]
    boxes = np.clip(np.asarray(data.boxes[rows]) / size, 0, 1)
    labels = np.asarray(data.labels[rows], np.int64)
    real = (labels >= 0) & ~np.asarray(data.crowd[rows]) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    width = max(1, int(real.sum(1).max(initial=0)))
    order = np.argsort(~real, axis=1, kind="stable")[:, :width]
    valid = np.take_along_axis(real, order, 1)
    boxes = np.take_along_axis(boxes, order[..., None], 1) * valid[..., None]
    labels = np.where(valid, np.take_along_axis(labels, order, 1), 0)
    centred = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)
    return Targets(centred.astype(np.float32), labels, valid, order)
