"""Prepared sets of random values in the form of real ones, to measure speed where the data is not. Never a result."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replications.datasets.arrays import MANIFEST, set_path
from replications.datasets.checksum import digest
from replications.datasets.registry import data_fingerprint, find_set


@dataclass(frozen=True)
class SyntheticSet:
    """Random arrays by name, and the facts that the task reads."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


def write_synthetic(key: str, found: SyntheticSet, data_root: Path) -> None:
    """Write a set below a separate data root, so that `replications.datasets.arrays.open_set` opens it as `key`."""
    folder = set_path(key, data_root)
    folder.mkdir(parents=True)
    forms = {}
    for name, array in found.arrays.items():
        np.save(folder / f"{name}.npy", array)
        sha256 = digest(folder / f"{name}.npy")
        forms[name] = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": sha256}
    meta = {
        "key": key,
        "title": f"random values in the form of {find_set(key).title}",
        "kind": "synthetic",
        "fingerprint": data_fingerprint(key),
        "facts": dict(found.facts),
        "arrays": forms,
        "files": {},
    }
    (folder / MANIFEST).write_text(json.dumps(meta))


def random_bytes(shape: tuple[int, ...], most: int = 2**24) -> np.ndarray:
    """Return random uint8 of a shape; from `most` values on they repeat, since drawing them is what takes long."""
    total = int(np.prod(shape))
    drawn = np.random.default_rng(0).integers(0, 256, min(total, most), np.uint8)
    return np.resize(drawn, shape)


def splits(train: int, others: int = 8) -> np.ndarray:
    """Return the split of each row: `train` rows of split 0, then `others` of split 1 and of split 2, int8."""
    return np.repeat(np.arange(3, dtype=np.int8), [train, others, others])
