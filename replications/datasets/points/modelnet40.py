"""ModelNet40 in its two public layouts.

``layout: hdf5`` is ``modelnet40_ply_hdf5_2048``: ``ply_data_{train,test}*.h5`` with ``data`` [N, 2048, 3] and ``label``
[N, 1], and ``shape_names.txt``. ``layout: normals`` is ``modelnet40_normal_resampled``: a text file a shape with
10,000 rows x,y,z,nx,ny,nz, and lists of names; the *first* rows are used, as public code does.
"""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.lines import read_lines
from replications.datasets.points.clouds import (
    check_cloud,
    first_points,
    normalise,
    splits_of,
    whole_labels,
    write_clouds,
)
from replications.datasets.rows import cut, fill_rows, require_finite
from replications.errors import UserError
from replications.parsing import parse

ROWS_A_JOB = 64
TEST = 2


class Options(BaseModel):
    """Options of a set. `classes`: ModelNet10's are a part of the same files."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    layout: Literal["hdf5", "normals"]
    points: int = Field(ge=1)
    validation: float = Field(gt=0, lt=1, description="share of the training shapes")
    classes: Literal[10, 40] = 40


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``points``, with the layout that has them ``normals``, ``label`` and ``split``; source ``shapes``.

    Clouds are moved to their mean and scaled into the unit sphere. Raises UserError.
    """
    wanted = parse(Options, options, "ModelNet40")
    if wanted.layout == "hdf5":
        return _prepare_hdf5(target, wanted, files["shapes"])
    return _prepare_normals(target, wanted, files["shapes"], workers)


def _prepare_hdf5(target: Path, wanted: Options, root: Path) -> dict:
    names = read_lines(root / "shape_names.txt")
    clouds, label, split = [], [], []
    for part in ("train", "test"):
        found = sorted(root.glob(f"ply_data_{part}*.h5"))
        if not found:
            raise UserError(f"{root} has no ply_data_{part}*.h5: unpack modelnet40_ply_hdf5_2048 there")
        for path in found:
            data, own = read_hdf5(path, ("data", "label"))
            for row, cloud in enumerate(data):
                clouds.append(first_points(check_cloud(cloud, f"{path}, shape {row}"), wanted.points))
            label += whole_labels(own, str(path))
            split += [TEST if part == "test" else 0] * len(data)
    split = np.array(split, np.int8)
    training = split != TEST
    split[training] = splits_of([c.tobytes().hex() for c in np.stack(clouds)[training]], wanted.validation)
    points = normalise(np.stack(clouds).astype(np.float64)).astype(np.float32)
    return write_clouds(target, names, points=points, label=np.array(label, np.int16), split=split)


def read_hdf5(path: Path, keys: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """Return arrays of an hdf5 file; raises UserError that names a key that is not there, and those that are."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in keys if key not in file]
            if missing:
                raise UserError(f"{path} has no '{missing[0]}' (it has: {', '.join(file) or 'nothing'})")
            arrays = tuple(file[key][()] for key in keys)
            if len({len(array) for array in arrays}) > 1:
                raise UserError(f"{path}: {' and '.join(keys)} have {' and '.join(str(len(a)) for a in arrays)} rows")
            return arrays
    except UserError:
        raise
    except Exception as error:  # a damaged file may fail in any way
        raise UserError(f"{path} is not an hdf5 file: {error}") from error


def _prepare_normals(target: Path, wanted: Options, root: Path, workers: int) -> dict:
    names = read_lines(root / f"modelnet{wanted.classes}_shape_names.txt")
    shapes, split = [], []
    for number, part in ((0, "train"), (TEST, "test")):
        own = read_lines(root / f"modelnet{wanted.classes}_{part}.txt")
        shapes += own
        split += [number] * len(own)
    label = [_class_of(shape, names, root) for shape in shapes]
    split = np.array(split, np.int8)
    training = split != TEST
    split[training] = splits_of([s for s, t in zip(shapes, training, strict=True) if t], wanted.validation)
    form = ((len(shapes), wanted.points, 3), "float32")
    fill_rows(
        target,
        {"points": form, "normals": form},
        cut(shapes, ROWS_A_JOB),
        partial(_read_shapes, root, wanted.points),
        workers,
        "reading shapes",
    )
    return write_clouds(target, names, label=np.array(label, np.int16), split=split)


def _class_of(shape: str, names: list[str], root: Path) -> int:
    name = shape.rpartition("_")[0]  # night_stand_0001
    if name not in names:
        raise UserError(f"{root}: shape '{shape}' is of none of the classes in the list of names")
    return names.index(name)


def _read_shapes(root: Path, points: int, shapes: list[str]) -> dict[str, np.ndarray]:
    rows = [first_points(read_text(root / s.rpartition("_")[0] / f"{s}.txt", 6, ","), points) for s in shapes]
    clouds = np.stack(rows)
    return {"points": normalise(clouds[..., :3].astype(np.float64)).astype(np.float32), "normals": clouds[..., 3:]}


def read_text(path: Path, columns: int, delimiter: str | None = None) -> np.ndarray:
    """Return a cloud's text file as float32 [n, columns], positions first; raises UserError."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            rows = np.loadtxt(stream, np.float32, delimiter=delimiter, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the cloud {path}: {error}") from error
    if len(rows) and rows.shape[1] != columns:
        raise UserError(f"{path} has {rows.shape[1]} columns, expected {columns}")
    check_cloud(rows[:, :3] if len(rows) else np.empty((0, 3)), str(path))
    require_finite(rows, f"{path}: the numbers of a point")
    return rows
