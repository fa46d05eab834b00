"""The task's data: ``bits`` uint8 [N, pixels] of 0 and 1, ``label`` int [N] (-1: none) and ``split`` int8 [N]."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from replications.errors import UserError
from replications.tasks.data import Splits, open_prepared
from replications.training.stage import Batch


@dataclass(frozen=True)
class BinarySet(Splits):
    """A set of binary images. `classes` is 0 where it has no labels."""

    key: str
    title: str
    bits: np.ndarray
    label: np.ndarray
    split: np.ndarray
    shape: tuple[int, int]
    classes: int

    def images(self, split: str) -> Batch:
        """Return ``image`` float32 [n, pixels] and, where there are labels, ``label`` int64 [n] of a split."""
        rows = self.rows(split, needed=True)
        found = {"image": torch.from_numpy(self.bits[rows].astype(np.float32))}
        if self.classes:
            found["label"] = torch.from_numpy(self.label[rows].astype(np.int64))
        return found


def open_binary(key: str, data_root: Path) -> BinarySet:
    """Open a set; raises UserError where it is something else, or not binary."""
    prepared = open_prepared(key, data_root, "binary images", ("bits", "label", "split"))
    bits, facts = np.asarray(prepared.arrays["bits"]), prepared.meta["facts"]
    if bits.max(initial=0) > 1:
        raise UserError(f"data set '{key}' has the value {bits.max()}: density estimation takes images of 0 and 1")
    label, split = (np.asarray(prepared.arrays[name]) for name in ("label", "split"))
    return BinarySet(key, prepared.meta["title"], bits, label, split, tuple(facts["shape"]), facts["classes"])
