"""CIFAR-10 and CIFAR-100, from the official archives of Python pickles.

The pickles are read without running anything they could name: arrays, text and numbers only.
"""

import io
import pickle
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import Field

from replications.datasets.extract import tar_files
from replications.datasets.images.classified import TEST, TRAIN, hold_out
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

ALLOWED = {("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class Options(Strict):
    """Options of the set; the counts are those that the official archive must have."""

    num_classes: int = Field(description="10 or 100 (the fine labels)", ge=2)
    num_train: int = Field(50_000, ge=1)
    num_test: int = Field(10_000, ge=1)
    validation: float = Field(0.0, ge=0, lt=1, description="fraction of each class's training images that is held out")


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module.rpartition(".")[2] or module, name) not in ALLOWED:
            raise UserError(f"a CIFAR pickle names {module}.{name}: refused")
        if name == "_reconstruct":
            module = "numpy._core.multiarray"  # where it is since numpy 2
        return super().find_class(module, name)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``images`` uint8 [N, 32, 32, 3], ``label`` and ``split`` of the source ``archive``."""
    wanted = parse(Options, options, "options of CIFAR")
    archive = files["archive"]
    batches: dict[str, dict] = {}
    for member, stream in tar_files(archive):
        name = PurePosixPath(member).name
        if name in ("train", "test", "test_batch", "meta", "batches.meta") or name.startswith("data_batch_"):
            batches[name] = _ArraysOnly(io.BytesIO(stream.read()), encoding="bytes").load()
    key, names = (b"labels", b"label_names") if wanted.num_classes == 10 else (b"fine_labels", b"fine_label_names")
    parts = {TRAIN: [], TEST: []}
    for name in sorted(batches):
        if "meta" not in name:
            parts[TEST if name.startswith("test") else TRAIN].append(batches[name])
    counts = {split: sum(len(batch[b"data"]) for batch in part) for split, part in parts.items()}
    if (counts[TRAIN], counts[TEST]) != (wanted.num_train, wanted.num_test):
        raise UserError(f"{archive} has {counts[TRAIN]} and {counts[TEST]} images, not the official counts")
    ordered = [*parts[TRAIN], *parts[TEST]]
    images = np.concatenate([batch[b"data"] for batch in ordered]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    label = np.concatenate([np.asarray(batch[key]) for batch in ordered]).astype(np.int32)
    split = np.repeat(np.array([TRAIN, TEST], np.int8), (counts[TRAIN], counts[TEST]))
    np.save(target / "images.npy", np.ascontiguousarray(images))
    np.save(target / "label.npy", label)
    np.save(target / "split.npy", hold_out(label, split, wanted.validation))
    meta = batches.get("batches.meta") or batches.get("meta") or {}
    classes = [name.decode() for name in meta.get(names, [])] or [str(i) for i in range(wanted.num_classes)]
    return {"classes": classes, "images": len(label)}
