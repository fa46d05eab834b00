"""What all sets of classified photographs share: decoding with warnings, held-out rows, the arrays.

A set has ``images`` uint8 [N, S, S, 3] (RGB), ``label`` int32 [N], ``split`` int8 [N] (0 train, 1 validation, 2 test,
-1 left out) and ``condition`` uint8 [N] (`CONDITIONS`).
"""

import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from replications.datasets.decoding import DamagedPicture, crop_and_resize, decode
from replications.datasets.litter import entries, pictures
from replications.datasets.rows import Job, cut, fill_rows
from replications.errors import UserError
from replications.spec import Strict

TRAIN, VALIDATION, TEST, LEFT_OUT = 0, 1, 2, -1
CONDITIONS = ("colour", "greyscale", "CMYK", "damaged")
GREY_OR_CMYK = {"L": 1, "LA": 1, "1": 1, "I": 1, "CMYK": 2}  # Pillow's mode -> condition
ROWS_A_JOB = 256
NAMES_KEPT = 20

Item = tuple[str, bytes | Path]


class ImageOptions(Strict):
    """Options that every set of photographs has."""

    size: int = Field(gt=0, description="side of the prepared images, pixels: the middle square, resized")
    validation: float = Field(0.0, ge=0, lt=1, description="fraction of each class's training images that is held out")
    damaged: Literal["stop", "skip"] = Field("stop", description="what happens to a file that cannot be read")


def photograph_rows(items: Sequence[Item], size: int) -> dict[str, np.ndarray]:
    """Decode named pictures: images uint8 [n, size, size, 3] and condition uint8 [n]; a damaged one is black.

    Greyscale and CMYK pictures become RGB. Raises UserError for a file that cannot be read at all.
    """
    images = np.zeros((len(items), size, size, 3), np.uint8)
    condition = np.zeros(len(items), np.uint8)
    for row, (name, data) in enumerate(items):
        try:
            images[row] = np.asarray(middle_square(decode(data, name), size))
        except DamagedPicture:
            condition[row] = CONDITIONS.index("damaged")
        else:
            condition[row] = GREY_OR_CMYK.get(_mode(data).partition(";")[0], 0)
    return {"images": images, "condition": condition}


def _mode(data: bytes | Path) -> str:
    with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
        return image.mode


def middle_square(image: Image.Image, size: int) -> Image.Image:
    """Return the largest square in the middle at `size` x `size`, bilinear with antialiasing."""
    side = min(image.size)
    left, upper = (image.width - side) // 2, (image.height - side) // 2
    return crop_and_resize(image, (left, upper, left + side, upper + side), size)


def write_photographs(
    target: Path,
    wanted: ImageOptions,
    names: Sequence[str],
    label: np.ndarray,
    split: np.ndarray,
    jobs: Callable[[], Iterable[Job]],
    workers: int,
    title: str,
) -> dict:
    """Decode `jobs` (payloads are lists of (name, bytes or path)) into `target` and return what is known of the rows.

    `names` are the files of the rows, for messages; `split` marks train and test, validation is held out here. All
    three may be filled in while the jobs are drawn (an archive is read once). Raises
    UserError that names the first damaged file, unless they are to be skipped.
    """
    forms = {"images": ((len(label), wanted.size, wanted.size, 3), "uint8"), "condition": ((len(label),), "uint8")}
    fill_rows(target, forms, jobs(), partial(photograph_rows, size=wanted.size), workers, f"prepare {title}")
    condition = np.load(target / "condition.npy")
    damaged = np.flatnonzero(condition == CONDITIONS.index("damaged"))
    if len(damaged) and wanted.damaged == "stop":
        raise UserError(
            f"{names[damaged[0]]} cannot be read as an image (damaged in all: {len(damaged)} of {len(names)} files): "
            "replace them, or set 'damaged: skip' in the set's options in datasets/registry/images.yaml"
        )
    split = hold_out(label, split, wanted.validation)
    split[damaged] = LEFT_OUT
    np.save(target / "label.npy", label.astype(np.int32))
    np.save(target / "split.npy", split)
    odd = {}
    for code, kind in enumerate(CONDITIONS[1:], 1):
        rows = np.flatnonzero(condition == code)
        odd[kind] = {"count": len(rows), "first": [names[row] for row in rows[:NAMES_KEPT]]}
    return {"images": len(label), "odd_files": odd}


def write_files(
    target: Path, wanted: ImageOptions, files: Sequence[tuple[Path, int, int]], root: Path, workers: int
) -> dict:
    """Write a set from (path, label, split) of each picture; see `write_photographs`."""
    if not files:
        raise UserError(f"{root} holds no images")
    names = [str(path.relative_to(root)) for path, _, _ in files]
    items = [(str(path), path) for path, _, _ in files]
    label, split = (np.array([entry[place] for entry in files]) for place in (1, 2))
    return write_photographs(
        target, wanted, names, label, split.astype(np.int8), lambda: cut(items, ROWS_A_JOB), workers, root.name
    )


def hold_out(label: np.ndarray, split: np.ndarray, fraction: float) -> np.ndarray:
    """Return `split` with a share of each class's training rows, drawn once and for all, as validation."""
    split = np.array(split, np.int8)
    numbers = np.random.default_rng(0)
    for which in np.unique(label):
        own = np.flatnonzero((label == which) & (split == TRAIN))
        split[numbers.permutation(own)[: round(fraction * len(own))]] = VALIDATION
    return split


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the order of their names; raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: the set is not in its official layout")
    found = pictures(entries(folder))
    if not found:
        raise UserError(f"{folder} holds no image: a class without images")
    return found
