"""Binary images with fixed bits: scikit-learn's digits, idx files as of MNIST, or the text files of binarised MNIST.

Grey images are cut at half of their range, once and for all: new draws in each epoch lower an NLL by nats.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from replications.datasets.images.idx import read_idx
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

PARTS = ("train", "validation", "test")


class Options(Strict):
    """Options of the set. The text files have their own validation split."""

    form: Literal["digits", "idx", "text"]
    side: int = Field(ge=1, le=64, description="pixels, square")
    validation: int = Field(ge=0, description="images at the end of the training images that are held out")
    test: int = Field(ge=1, description="images of the test split")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``bits`` uint8 [N, S * S] of 0 and 1, ``label`` int32 [N] and ``split`` int8 [N].

    Splits are 0 train, 1 validation, 2 test. The label is -1 where the source has none.
    """
    wanted = parse(Options, options, "options of the binarised images")
    bits, label, split = {"digits": _digits, "idx": _idx, "text": _text}[wanted.form](wanted, files)
    if wanted.form != "text":
        last = int((split == 0).sum())
        split[last - wanted.validation : last] = 1
    if int((split == 2).sum()) != wanted.test:
        raise UserError(f"the source has {int((split == 2).sum())} test images, not {wanted.test}")
    np.save(target / "bits.npy", bits.astype(np.uint8))
    np.save(target / "label.npy", label.astype(np.int32))
    np.save(target / "split.npy", split)
    counts = {part: int((split == number).sum()) for number, part in enumerate(PARTS)}
    return {"shape": [wanted.side, wanted.side], "classes": int(label.max()) + 1, "images": counts}


def _digits(wanted: Options, files: dict[str, Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    found = load_digits()
    split = np.zeros(len(found.target), np.int8)
    split[len(split) - wanted.test :] = 2
    return found.data >= 8, found.target, split


def _idx(wanted: Options, files: dict[str, Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images = [read_idx(files[f"{part}_images"]) for part in ("train", "test")]
    label = [read_idx(files[f"{part}_labels"]) for part in ("train", "test")]
    split = np.repeat(np.array([0, 2], np.int8), [len(part) for part in images])
    return np.concatenate(images).reshape(len(split), -1) >= 128, np.concatenate(label), split


def _text(wanted: Options, files: dict[str, Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = [read_text(files[part], wanted.side**2) for part in PARTS]
    split = np.repeat(np.arange(3, dtype=np.int8), [len(part) for part in parts])
    return np.concatenate(parts), np.full(len(split), -1), split


def read_text(path: Path, pixels: int) -> np.ndarray:
    """Return the bits [N, pixels] of a text file: a line an image, "0 1 1 ..."; raises UserError for anything else."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if not len(data) or len(data) % (2 * pixels):
        raise UserError(f"{path} is not made of lines of {pixels} bits")
    bits = data.reshape(-1, 2)[:, 0] - ord("0")
    if (bits > 1).any():
        raise UserError(f"{path} has a value that is neither 0 nor 1")
    return bits.reshape(-1, pixels)
