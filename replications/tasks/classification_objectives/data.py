"""Samples as vectors, their splits, and one class against the rest.

A prepared set has ``inputs`` float32 [N, D], or ``images`` uint8 [N, H, W] (or with three equal channels), which become
vectors in [-1, 1]; ``label`` and ``split``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from replications.datasets.registry import describe_set
from replications.errors import UserError
from replications.tasks.data import SPLITS, Splits, open_prepared, set_key
from replications.tasks.run import Context


@dataclass(frozen=True)
class Samples(Splits):
    """Vectors float32 ``[N, D]`` and classes int64 ``[N]``. `side` is that of square images, else None."""

    key: str
    x: np.ndarray
    label: np.ndarray
    split: np.ndarray
    num_classes: int
    side: int | None

    def of(self, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
        rows = self.rows(split)
        return torch.from_numpy(self.x[rows]).to(device), torch.from_numpy(self.label[rows]).to(device)

    def shares(self) -> list[float]:
        """Return each class's share of the training samples."""
        counts = np.bincount(self.label[self.rows("train")], minlength=self.num_classes)
        return (counts / counts.sum()).tolist()

    def title(self) -> str:
        return describe_set(self.key)["title"]


def open_samples(context: Context) -> Samples:
    """Open the run's set as its options want it.

    Raises UserError for a set of something else, one that is too small, and for a class that a split has no sample of.
    """
    options, key = context.options, set_key(context, "samples")
    prepared = open_prepared(key, context.data_root, "labelled samples", ("label", "split"))
    arrays, names = prepared.arrays, list(prepared.meta["facts"]["classes"])
    if "inputs" not in arrays and "images" not in arrays:
        raise UserError(f"data set '{key}' is not a set of labelled samples: it has no 'inputs' and no 'images'")
    x, side = arrays.get("inputs"), None
    if x is None:
        images = arrays["images"] if arrays["images"].ndim == 3 else arrays["images"][..., 0]
        side = images.shape[1]
        x = images.reshape(len(images), -1).astype(np.float32) / 127.5 - 1
    label, split = np.asarray(arrays["label"], np.int64), np.array(arrays["split"])
    if options.rare_class is not None:
        if options.rare_class >= len(names):
            raise UserError(f"task option 'rare_class': data set '{key}' has classes 0 to {len(names) - 1}")
        label, names = (label == options.rare_class).astype(np.int64), ["rest", names[options.rare_class]]
    if options.deal is not None:
        split = deal(len(label), options.deal.train, options.deal.validation, context.spec.seed, key)
    found = Samples(key, np.asarray(x), label, split, len(names), side)
    for name in SPLITS if options.rare_class is not None else ("train", "test"):
        counts = np.bincount(label[found.rows(name, needed=True)], minlength=len(names))
        if not counts.all():
            raise UserError(f"data set '{key}': no sample of class '{names[int(counts.argmin())]}' in its {name} split")
    return found


def deal(count: int, train: int, validation: int, seed: int, key: str) -> np.ndarray:
    """Return the split of each of `count` samples: a permutation by `seed` is cut in three."""
    if train + validation >= count:
        raise UserError(f"task option 'deal': {train} and {validation} of {count} samples of '{key}' leave no test set")
    split = np.full(count, SPLITS.index("test"), np.int8)
    order = np.random.default_rng([seed, 1]).permutation(count)
    split[order[:train]], split[order[train : train + validation]] = 0, 1
    return split
