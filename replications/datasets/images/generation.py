"""Grey images for generation, and the frozen network by whose features generated images are compared with real ones.

The network is a part of the set, so its weights are hashed as data: a distance is of one network, which a table can
name. It is trained on the training images alone, in float64 on whole batches, and its weights are rounded to 2^-12, so
that other processors, which add in another order, make the same bits.
"""

from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from replications.datasets.images.idx import read_idx
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

PARTS = ("train", "validation", "test")
GRID = 2**12


class Options(Strict):
    """Options of the set."""

    form: Literal["digits", "idx"]
    side: int = Field(ge=4, le=64, description="pixels, square; larger images are averaged down")
    validation: int = Field(ge=0, description="images at the end of the training images that are held out")
    test: int = Field(ge=1, description="images of the test split")
    feature_images: int = Field(ge=10, description="training images of the feature network, at most: the first")
    feature_steps: int = Field(ge=1)
    feature_hidden: int = Field(ge=1)
    features: int = Field(ge=2, le=256)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``images`` uint8 [N, S * S], ``label`` int32 [N], ``split`` int8 [N] and the feature network.

    Splits are 0 train, 1 validation, 2 test. The network is ``feature_weight_0`` [S * S, H], ``feature_bias_0`` [H],
    ``feature_weight_1`` [H, F] and ``feature_bias_1`` [F], float32; the features are the second layer's outputs.
    """
    wanted = parse(Options, options, "options of the images")
    images, label, split = {"digits": _digits, "idx": _idx}[wanted.form](wanted, files)
    last = int((split == 0).sum())
    split[last - wanted.validation : last] = 1
    if int((split == 2).sum()) != wanted.test:
        raise UserError(f"the source has {int((split == 2).sum())} test images, not {wanted.test}")
    network, accuracy = feature_network(images, label, split, wanted)
    arrays = {"images": images, "label": label.astype(np.int32), "split": split} | network
    for name, array in arrays.items():
        np.save(target / f"{name}.npy", array)
    counts = {part: int((split == number).sum()) for number, part in enumerate(PARTS)}
    return {
        "shape": [wanted.side, wanted.side],
        "classes": int(label.max()) + 1,
        "images": counts,
        "feature_accuracy": accuracy,
    }


def _digits(wanted: Options, files: dict[str, Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    found = load_digits()
    split = np.zeros(len(found.target), np.int8)
    split[len(split) - wanted.test :] = 2
    grey = (found.images * (255 / 16)).round().astype(np.uint8)
    return _sized(grey, wanted.side), found.target, split


def _idx(wanted: Options, files: dict[str, Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images = [read_idx(files[f"{part}_images"]) for part in ("train", "test")]
    label = [read_idx(files[f"{part}_labels"]) for part in ("train", "test")]
    split = np.repeat(np.array([0, 2], np.int8), [len(part) for part in images])
    return _sized(np.concatenate(images), wanted.side), np.concatenate(label), split


def _sized(images: np.ndarray, side: int) -> np.ndarray:
    if images.shape[1:] != (side, side):
        resized = [Image.fromarray(image).resize((side, side), Image.Resampling.BOX) for image in images]
        images = np.stack([np.asarray(image) for image in resized])
    return images.reshape(len(images), -1)


def feature_network(
    images: np.ndarray, label: np.ndarray, split: np.ndarray, wanted: Options
) -> tuple[dict[str, np.ndarray], float]:
    """Train a classifier pixels - tanh - features - tanh - classes; return its first two layers and test accuracy."""
    import torch
    from torch.nn import functional as F

    rows = np.flatnonzero(split == 0)[: wanted.feature_images]
    rng = np.random.default_rng(0)
    sizes = [images.shape[1], wanted.feature_hidden, wanted.features, int(label.max()) + 1]
    weights = [torch.from_numpy(rng.normal(size=(a, b)) / a**0.5).requires_grad_() for a, b in pairwise(sizes)]
    biases = [torch.zeros(b, dtype=torch.float64, requires_grad=True) for b in sizes[1:]]

    def logits(chosen: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(images[chosen] / 127.5 - 1)
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = (x.tanh() if number else x) @ weight + bias
        return x

    target = torch.from_numpy(label[rows].astype(np.int64))
    optimizer = torch.optim.AdamW([*weights, *biases], lr=1e-2, weight_decay=0.1)
    with torch.enable_grad():
        for step in range(wanted.feature_steps):
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / wanted.feature_steps)
            optimizer.zero_grad()
            F.cross_entropy(logits(rows), target).backward()
            optimizer.step()
    test = np.flatnonzero(split == 2)
    accuracy = 100 * float((logits(test).argmax(1).numpy() == label[test]).mean())
    found = {}
    for number in range(2):
        for name, value in (("weight", weights[number]), ("bias", biases[number])):
            rounded = np.round(value.detach().numpy() * GRID) / GRID
            found[f"feature_{name}_{number}"] = rounded.astype(np.float32)
    return found, round(accuracy, 2)
