"""The task's data: grey ``images`` uint8 [N, pixels], ``label``, ``split`` and the feature network's weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from replications.tasks.data import Splits, open_prepared
from replications.training.stage import Batch

NETWORK = tuple(f"feature_{name}_{layer}" for layer in (0, 1) for name in ("weight", "bias"))


@dataclass(frozen=True)
class ImageSet(Splits):
    """A set of grey images. `classes` is 0 where it has no labels; `features` says which network is the set's."""

    key: str
    title: str
    images: np.ndarray
    label: np.ndarray
    split: np.ndarray
    network: dict[str, np.ndarray]
    features: str
    shape: tuple[int, int]
    classes: int

    def grey(self, split: str, count: int | None = None) -> np.ndarray:
        """Return the first images of a split, uint8 [n, pixels]."""
        return self.images[self.rows(split, needed=True)[:count]]

    def batch(self, split: str) -> Batch:
        """Return ``image`` float32 [n, pixels] in [-1, 1] and, where there are labels, ``label`` int64 [n]."""
        rows = self.rows(split, needed=True)
        found = {"image": torch.from_numpy(self.images[rows].astype(np.float32)) / 127.5 - 1}
        if self.classes:
            found["label"] = torch.from_numpy(self.label[rows].astype(np.int64))
        return found


def as_grey(image: Tensor) -> np.ndarray:
    """Return images in [-1, 1] as uint8, rounded and clipped."""
    return ((image.cpu().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()


def open_images(key: str, data_root: Path) -> ImageSet:
    """Open a set; raises UserError where it is something else."""
    prepared = open_prepared(key, data_root, "images with a feature network", ("images", "label", "split", *NETWORK))
    meta, arrays = prepared.meta, {name: np.asarray(array) for name, array in prepared.arrays.items()}
    digest = "".join(meta["arrays"][name]["sha256"][:2] for name in NETWORK)
    network, facts = {name: arrays[name] for name in NETWORK}, meta["facts"]
    images, label, split = (arrays[name] for name in ("images", "label", "split"))
    return ImageSet(key, meta["title"], images, label, split, network, digest, tuple(facts["shape"]), facts["classes"])
