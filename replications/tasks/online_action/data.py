"""The task's data: streams of frames (see ``datasets/actions/form.py``), and windows of them to train on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from replications.datasets.actions.form import ARRAYS
from replications.tasks.data import Splits, open_prepared
from replications.training.batches import SampleOrder
from replications.training.stage import Batch


@dataclass(frozen=True)
class Streams(Splits):
    """A set of streams; `split` has one number a stream."""

    key: str
    title: str
    features: np.ndarray
    target: np.ndarray
    valid: np.ndarray
    bounds: np.ndarray
    split: np.ndarray
    classes: list[str]

    def frames(self, stream: int) -> slice:
        """Return where a stream's frames are."""
        return slice(int(self.bounds[stream]), int(self.bounds[stream + 1]))

    def labels(self, split: str) -> dict[str, np.ndarray]:
        """Return ``target`` without the background, ``valid`` and ``bounds`` of a split's streams."""
        frames = [self.frames(stream) for stream in self.rows(split, needed=True)]
        lengths = [part.stop - part.start for part in frames]
        return {
            "target": np.concatenate([self.target[part, 1:] for part in frames]),
            "valid": np.concatenate([self.valid[part] for part in frames]),
            "bounds": np.cumsum([0, *lengths], dtype=np.int64),
        }


def open_streams(key: str, data_root: Path) -> Streams:
    """Open a set; raises UserError where it is something else."""
    prepared = open_prepared(key, data_root, "streams of actions", ARRAYS)
    arrays, meta = prepared.arrays, prepared.meta
    small = {name: np.asarray(arrays[name]) for name in ("target", "valid", "bounds", "split")}
    return Streams(key, meta["title"], arrays["features"], **small, classes=meta["facts"]["classes"])


class StreamBatches:
    """Windows of the training streams with the labels of `horizon` frames more (`Batches`).

    An epoch has a window for each valid frame, its last. Before a stream there are frames of zeros, which with the
    frames after its end are not valid. Gives ``features`` float32 ``[batch, window, width]``, ``target`` uint8
    ``[batch, window + horizon, classes]`` and ``valid`` bool ``[batch, window + horizon]``.
    """

    def __init__(
        self, data: Streams, window: int, horizon: int, batch_size: int, seed: int, device: torch.device | str
    ):
        parts = [data.frames(stream) for stream in data.rows("train", needed=True)]
        margin = window - 1 + horizon  # of each stream: zeros before it, and frames that nobody labelled after it
        total = sum(part.stop - part.start + margin for part in parts)
        arrays = {
            name: np.zeros((total, *array.shape[1:]), array.dtype)
            for name, array in (("features", data.features), ("target", data.target), ("valid", data.valid))
        }
        place = 0
        for part in parts:
            inside = slice(place + window - 1, place + window - 1 + part.stop - part.start)
            arrays["features"][inside] = data.features[part]
            arrays["target"][inside] = data.target[part]
            arrays["valid"][inside] = data.valid[part]
            place = inside.stop + horizon
        self._last = torch.from_numpy(np.flatnonzero(arrays["valid"])).to(device)
        self._arrays = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        self._offsets = torch.arange(1 - window, horizon + 1, device=device)
        self.window, self.samples, self.batch_size = window, len(self._last), batch_size
        self._order = SampleOrder(self.samples, batch_size, seed, device)

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        rows = self._last[self._order.rows(step, part, parts)][:, None] + self._offsets
        batch = {name: self._arrays[name][rows] for name in ("target", "valid")}
        return batch | {"features": self._arrays["features"][rows[:, : self.window]].float()}
