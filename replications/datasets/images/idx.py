"""Grey images in the idx files of MNIST's form."""

import gzip
from pathlib import Path

import numpy as np
from pydantic import Field

from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

CLASSES = 10


class Options(Strict):
    """Options of the set."""

    validation: int = Field(ge=0, description="images at the end of the training images that are held out")
    classes: tuple[str, ...] = Field(min_length=CLASSES, max_length=CLASSES, description="names, in the labels' order")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``images`` uint8 [N, S, S], ``label`` int32 [N] and ``split`` int8 [N] (0 train, 1 validation, 2 test)."""
    wanted = parse(Options, options, "options of the idx images")
    images = [read_idx(files[f"{part}_images"]) for part in ("train", "test")]
    label = np.concatenate([read_idx(files[f"{part}_labels"]) for part in ("train", "test")]).astype(np.int32)
    if len(label) != sum(map(len, images)) or label.max() >= CLASSES:
        raise UserError(f"{files['train_labels']}: its labels are not those of the images")
    split = np.repeat(np.array([0, 2], np.int8), [len(part) for part in images])
    split[len(images[0]) - wanted.validation : len(images[0])] = 1
    np.save(target / "images.npy", np.concatenate(images))
    np.save(target / "label.npy", label)
    np.save(target / "split.npy", split)
    return {"classes": list(wanted.classes), "images": len(label)}


def read_idx(path: Path) -> np.ndarray:
    """Return the array of unsigned bytes in a gzipped idx file; raises UserError where it is none."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise UserError(f"{path} is not a whole gzip file ({error})") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise UserError(f"{path} is not an idx file of unsigned bytes")
    axes = data[3]
    shape = np.frombuffer(data, ">i4", axes, 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * axes)
    if len(values) != np.prod(shape, dtype=np.int64):
        raise UserError(f"{path} has {len(values)} values, its header says {' x '.join(map(str, shape))}")
    return values.reshape(shape)
