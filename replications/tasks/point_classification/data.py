"""The task's data: clouds with a class, and where a set has them normals, colours and parts of points.

A set has ``points`` float32 [S, P, 3] (or [1, P, 3]: one grid for all), ``label`` int [S], ``split`` int8 [S] (0 train,
1 validation, 2 test), and may have ``normals`` float32 [S, P, 3], ``colours`` uint8 [S, P, C], ``part`` uint8 [S, P]
and ``copy`` bool [S] (test clouds that equal a training cloud). Its facts name ``classes``, and with parts ``parts``
and ``class_parts``, the parts of each class.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from replications.errors import UserError
from replications.tasks.data import SPLITS, Splits, open_prepared
from replications.training.stage import Batch


@dataclass(frozen=True)
class PointSet(Splits):
    """A set, cut to the first points of each cloud. `features` are normals or colours [S, P, C], or None."""

    key: str
    points: np.ndarray
    features: np.ndarray | None
    label: np.ndarray
    split: np.ndarray
    copy: np.ndarray
    part: np.ndarray | None
    classes: list[str]
    parts: list[str]
    class_parts: list[list[int]]
    pooled: bool

    @property
    def channels(self) -> int:
        """Feature channels of a point, beside its position."""
        return 0 if self.features is None else self.features.shape[-1]

    def clouds(self, rows: np.ndarray) -> Batch:
        """Return ``points`` [n, P, 3] and what else there is of some rows, as tensors on the CPU."""
        points = self.points[rows] if len(self.points) > 1 else np.repeat(self.points, len(rows), axis=0)
        found = {"points": _tensor(points), "label": _tensor(self.label[rows].astype(np.int64))}
        if self.features is not None:
            features = _tensor(self.features[rows])
            # Colours come as bytes and are used in [-1, 1].
            found["features"] = features if features.is_floating_point() else features.float() / 127.5 - 1
        if self.part is not None:
            found["part"] = _tensor(self.part[rows].astype(np.int64))
        return found


def open_points(key: str, data_root: Path, points: int, normals: bool) -> PointSet:
    """Open a set of clouds; raises UserError where it is something else, has too few points, or lacks a class."""
    prepared = open_prepared(key, data_root, "clouds", ("points", "label", "split"))
    arrays, facts = prepared.arrays, prepared.meta["facts"]
    there = arrays["points"].shape[1]
    if there < points:
        raise UserError(f"data set '{key}' has {there} points in a cloud, fewer than the {points} asked for")
    if normals and "normals" not in arrays:
        raise UserError(f"data set '{key}' has no normals: set the task option 'normals: false'")
    features = arrays["normals"] if normals else arrays.get("colours")
    label, split = np.asarray(arrays["label"]), np.asarray(arrays["split"])
    found = PointSet(
        key,
        arrays["points"][:, :points],
        None if features is None else features[:, :points],
        label,
        split,
        np.asarray(arrays["copy"]) if "copy" in arrays else np.zeros(len(label), bool),
        arrays["part"][:, :points] if "part" in arrays else None,
        facts["classes"],
        facts.get("parts", []),
        facts.get("class_parts", []),
        facts.get("pooled", False),
    )
    for number, name in enumerate(SPLITS):
        counts = np.bincount(label[split == number], minlength=len(found.classes))
        if (counts == 0).any():
            missing = found.classes[int(np.argmin(counts))]
            raise UserError(f"data set '{key}': no cloud of class '{missing}' in its {name} split")
    return found


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))


def keep(clouds: Batch, share: float) -> Batch:
    """Return the clouds with the first `share` of their points, repeated in turn up to the old number.

    Points of a prepared set are in random order, so this drops at random; the models' input keeps its size.
    """
    count = clouds["points"].shape[1]
    index = torch.arange(count, device=clouds["points"].device) % max(1, round(share * count))
    per_point = ("points", "features", "part")
    return {name: value[:, index] if name in per_point else value for name, value in clouds.items()}
