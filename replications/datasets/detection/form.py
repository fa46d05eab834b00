"""The form of a prepared detection set, written from images in files.

Arrays, one row an image: ``image_id`` int64, ``image_size`` int32 ``[N, 2]`` (height, width), ``split`` int8 (0
training, 1 validation, 2 test), and of its objects ``boxes`` float32 ``[N, T, 4]`` (xyxy in pixels, as annotated),
``labels`` int16 ``[N, T]`` (from 0; -1: none), ``crowd`` bool, ``area`` float32. ``files`` uint8 are the image files
one after the other, ``file_start`` int64 ``[N + 1]`` where each begins. (Procedural sets have ``images`` instead.)
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replications.datasets.decoding import decode
from replications.datasets.extract import open_zip, read_member
from replications.datasets.rows import cut, require_finite
from replications.errors import UserError
from replications.progress import progress

IMAGES_AT_A_TIME = 64  # read ahead
COCO_LIMITS = (32.0**2, 96.0**2)  # square pixels: small below the first, large above the second


@dataclass(frozen=True)
class Object:
    """An annotated object: `box` ``xyxy`` in pixels, `label` from 0."""

    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    area: float


@dataclass(frozen=True)
class Entry:
    """An annotated image. `name` is its file's path, `size` height and width, as annotated; `read` returns
    the file's bytes."""

    name: str
    image_id: int
    split: int
    size: tuple[int, int]
    objects: Sequence[Object]
    read: Callable[[], bytes]


class Tree:
    """The files of a folder or of a zip, by their path in it."""

    def __init__(self, path: Path):
        self.path, self._zip = Path(path), None
        if not self.path.is_dir():
            self._zip = open_zip(self.path)
            self._names = set(self._zip.namelist())

    def __contains__(self, name: str) -> bool:
        return (self.path / name).is_file() if self._zip is None else name in self._names

    def read(self, name: str) -> bytes:
        """Return a file's bytes; raises UserError where it is not there, not readable or the archive is damaged."""
        if name not in self:
            raise UserError(f"{self.path} has no file {name}")
        if self._zip is not None:
            return read_member(self._zip, name)
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {self.path / name}: {error.strerror}") from error


def write_set(
    target: Path,
    entries: Sequence[Entry],
    classes: Sequence[str],
    category_ids: Sequence[int],
    label: str,
    workers: int = 1,
) -> dict:
    """Write the arrays of a set and return its facts; images are decoded once, to see that they can be, by threads.

    Raises UserError for an image that is not what was annotated.
    """
    most = max(1, *(len(entry.objects) for entry in entries))
    count = len(entries)
    arrays = {
        "image_id": np.array([entry.image_id for entry in entries], np.int64),
        "image_size": np.array([entry.size for entry in entries], np.int32),
        "split": np.array([entry.split for entry in entries], np.int8),
        "boxes": np.zeros((count, most, 4), np.float32),
        "labels": np.full((count, most), -1, np.int16),
        "crowd": np.zeros((count, most), bool),
        "area": np.zeros((count, most), np.float32),
    }
    for row, entry in enumerate(entries):
        for place, one in enumerate(entry.objects):
            arrays["boxes"][row, place], arrays["labels"][row, place] = one.box, one.label
            arrays["crowd"][row, place], arrays["area"][row, place] = one.crowd, one.area
    for name, array in arrays.items():
        require_finite(array, name, [entry.name for entry in entries])
        np.save(target / f"{name}.npy", array)
    start = np.zeros(count + 1, np.int64)
    raw = target / "files.raw"
    with raw.open("wb") as stream, progress(label, count, "images") as counter, ThreadPoolExecutor(workers) as pool:
        for start_row, _, some in cut(entries, IMAGES_AT_A_TIME):
            for row, data in enumerate(pool.map(_checked, some), start_row):
                start[row + 1] = start[row] + stream.write(data)
                counter.advance(1)
    np.save(target / "file_start.npy", start)
    files = np.lib.format.open_memmap(target / "files.npy", "w+", np.uint8, (int(start[-1]),))
    files[:] = np.memmap(raw, np.uint8, "r") if start[-1] else 0
    files.flush()
    raw.unlink()
    real = arrays["labels"] >= 0
    return {
        "classes": list(classes),
        "category_ids": list(category_ids),
        "area_limits": list(COCO_LIMITS),
        "images": count,
        "objects": int(real.sum()),
        "crowds": int(arrays["crowd"].sum()),
        "images_without_objects": int((~real.any(1)).sum()),
        "most_objects": int(real.sum(1).max()),
    }


def _checked(entry: Entry) -> bytes:
    """Return the file of an image that can be decoded, and is of the annotated size."""
    data = entry.read()
    width, height = decode(data, f"{entry.name} (image {entry.image_id})").size
    if (height, width) != tuple(entry.size):
        raise UserError(
            f"{entry.name} (image {entry.image_id}) is {width}x{height} pixels, but annotated as "
            f"{entry.size[1]}x{entry.size[0]}"
        )
    return data
