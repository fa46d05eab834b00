"""Images as point sets: each pixel is a point of a grid, its colour a feature.

``data: digits`` are the 8 x 8 digits that come with scikit-learn; ``data: cifar10`` is CIFAR-10's python version.
"""

import io
import pickle
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.extract import tar_files
from replications.errors import UserError
from replications.parsing import parse

CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Options(BaseModel):
    """Options of a set. Of the training images `validation` are held out; ``None`` takes all that are left."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    data: str
    train: int | None = Field(None, ge=1)
    validation: int = Field(ge=1)
    test: int | None = Field(None, ge=1)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``points`` float32 [1, P, 3] (the grid in [-1, 1], z = 0, row by row), ``colours`` uint8 [S, P, C],
    ``label`` int16 [S] and ``split`` int8 [S]. The source ``images`` is CIFAR-10's archive. Raises UserError.
    """
    wanted = parse(Options, options, "images as points")
    readers = {"digits": lambda: _digits(wanted), "cifar10": lambda: read_cifar10(files["images"])}
    if wanted.data not in readers:
        raise UserError(f"images as points: data must be one of {', '.join(readers)}, not '{wanted.data}'")
    (train, train_label), (test, test_label), names = readers[wanted.data]()
    order = np.random.default_rng(0).permutation(len(train))
    held_out, kept = order[: wanted.validation], order[wanted.validation :][: wanted.train]
    images = np.concatenate([train[kept], train[held_out], test[: wanted.test]])
    label = np.concatenate([train_label[kept], train_label[held_out], test_label[: wanted.test]])
    counts = [len(kept), len(held_out), len(test[: wanted.test])]
    np.save(target / "points.npy", grid(images.shape[1]))
    np.save(target / "colours.npy", images.reshape(len(images), -1, images.shape[-1]))
    np.save(target / "label.npy", label.astype(np.int16))
    np.save(target / "split.npy", np.repeat(np.arange(3, dtype=np.int8), counts))
    return {"classes": list(names), "side": images.shape[1], "images": counts}


def grid(side: int) -> np.ndarray:
    """Return the places of the pixels of a square image, float32 ``[1, side * side, 3]``, row by row."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    y, x = np.meshgrid(-axis, axis, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.zeros(side * side, np.float32)], axis=1)[None]


Split = tuple[np.ndarray, np.ndarray]


def _digits(wanted: Options) -> tuple[Split, Split, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    images, label = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(1).permutation(len(images))
    images, label = images[order], label[order]
    test = len(images) // 3  # the order above is fixed, so this is one split for every set
    return (images[test:], label[test:]), (images[:test], label[:test]), tuple("0123456789")


def read_cifar10(archive: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """Return train and test images uint8 [N, 32, 32, 3] and labels of ``cifar-10-python.tar.gz``."""
    batches: dict[str, Split] = {}
    for member, stream in tar_files(archive):
        name = member.rsplit("/", 1)[-1]
        if name.startswith("data_batch_") or name == "test_batch":
            content = _Plain(io.BytesIO(stream.read())).load()
            images = np.asarray(content[b"data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            batches[name] = images, np.asarray(content[b"labels"])
    wanted = [f"data_batch_{i}" for i in range(1, 6)]
    for name in [*wanted, "test_batch"]:
        if name not in batches:
            raise UserError(f"{archive} has no file {name}: it is not CIFAR-10's python version")
    train = tuple(np.concatenate([batches[name][part] for name in wanted]) for part in (0, 1))
    return train, batches["test_batch"], CIFAR_NAMES


class _Plain(pickle.Unpickler):
    """Reads arrays and plain values; anything else in a pickle could run code."""

    ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )

    def __init__(self, stream):
        super().__init__(stream, encoding="bytes")

    def find_class(self, module: str, name: str):
        if (module, name) in self.ALLOWED:
            return super().find_class(module.replace("numpy.core.", "numpy._core."), name)
        raise UserError(f"a file of CIFAR-10 names {module}.{name}, which no array needs: it is not the owner's")
