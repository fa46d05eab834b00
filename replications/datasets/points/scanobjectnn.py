"""ScanObjectNN (Uy et al. 2019): objects cut out of scans, with and without background, 15 classes.

Reads ``training_objectdataset*.h5`` and ``test_objectdataset*.h5`` of one folder (``main_split`` or
``main_split_nobg``): ``data`` [N, 2048, 3], ``label`` [N], ``mask`` (background) is not used.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.points.clouds import (
    check_cloud,
    first_points,
    normalise,
    splits_of,
    whole_labels,
    write_clouds,
)
from replications.datasets.points.modelnet40 import read_hdf5
from replications.errors import UserError
from replications.parsing import parse

CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow", "sink",
    "sofa", "toilet",
)  # fmt: skip
TEST = 2


class Options(BaseModel):
    """Options of a set. `variant` is what follows ``objectdataset`` in the file names: the hardest is PB_T50_RS."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    points: int = Field(ge=1)
    validation: float = Field(gt=0, lt=1)
    variant: str = "_augmentedrot_scale75"


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``points``, ``label``, ``split``; source ``objects``. Raises UserError."""
    wanted = parse(Options, options, "ScanObjectNN")
    clouds, label, split = [], [], []
    for number, part in ((0, "training"), (TEST, "test")):
        path = files["objects"] / f"{part}_objectdataset{wanted.variant}.h5"
        if not path.is_file():
            raise UserError(f"no file {path}: the layout is that of the owner's archive")
        data, own = read_hdf5(path, ("data", "label"))
        for row, cloud in enumerate(data):
            clouds.append(first_points(check_cloud(cloud, f"{path}, object {row}"), wanted.points))
        label += whole_labels(own, str(path))
        split += [number] * len(data)
    split, points = np.array(split, np.int8), np.stack(clouds)
    training = split != TEST
    split[training] = splits_of([cloud.tobytes().hex() for cloud in points[training]], wanted.validation)
    points = normalise(points.astype(np.float64)).astype(np.float32)
    return write_clouds(target, CLASSES, points=points, label=np.array(label, np.int16), split=split)
