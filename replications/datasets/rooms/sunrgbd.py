"""SUN RGB-D (Song et al. 2015) for 3-D detection, from the official files and without Matlab.

Reads ``SUNRGBD/`` and ``SUNRGBDtoolbox/`` as they are unpacked: boxes, cameras and tilts from the toolbox's
``Metadata/SUNRGBDMeta.mat`` (the labels of version 1, which VoteNet uses), the split from
``traintestSUNRGBD/allsplit.mat``, points from the 16-bit depth images. What the toolbox's ``read3dPoints`` does is done
here: bits are turned back by three, depths are millimetres and end at 8 m, and the cloud is turned upright by the tilt.
"""

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.decoding import decode_depth
from replications.datasets.rooms.box_points import memberships
from replications.datasets.rooms.scene import MEMBERSHIPS
from replications.datasets.rooms.scenes import describe, padded
from replications.datasets.rows import cut, fill_rows
from replications.errors import UserError
from replications.parsing import parse

META = "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"
SPLIT = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
MOST_DEPTH = 8.0
SCENES_A_JOB = 16


class Options(BaseModel):
    """Options of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[str, ...] = Field(min_length=1)
    points: int = Field(ge=1, description="stored of each scene; a scene with fewer repeats some")
    most_objects: int = Field(64, ge=1, le=127)
    train_scenes: int | None = Field(None, description="how many there must be, without those that have no object")
    test_scenes: int | None = None
    seed: int = Field(0, ge=0)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write scenes (see ``rooms.scenes.write_scenes``) of the source ``scans``, the folder that holds both parts.

    Images without any box of `classes` are left out, as in the authors' preparation. Raises UserError where a file is
    missing or another.
    """
    wanted = parse(Options, options, "options of SUN RGB-D")
    root = files["scans"]
    names = [(split, name) for split, part in enumerate(read_split(root)) for name in part]
    table = _table(root)
    missing = [name for _, name in names if name not in table]
    if missing:
        raise UserError(f"{root / META} has no entry for {missing[0]}: the two .mat files are of different releases")
    names = [(split, name) for split, name in names if len(read_boxes(table[name], wanted.classes)[1])]
    for part, expected in ((0, wanted.train_scenes), (1, wanted.test_scenes)):
        count = sum(split == part for split, _ in names)
        if not count or (expected is not None and count != expected):
            raise UserError(
                f"{root} has {count} {('train', 'test')[part]} scenes with objects, expected {expected or 'some'}"
            )
    total = len(names)
    fill_rows(
        target,
        {
            "points": ((total, wanted.points, 3), "float32"),
            "inside": ((total, wanted.points, MEMBERSHIPS), "int8"),
            "boxes": ((total, wanted.most_objects, 7), "float32"),
            "label": ((total, wanted.most_objects), "int8"),
        },
        cut([name for _, name in names], SCENES_A_JOB),
        partial(_rows, wanted, root),
        workers,
        "reading SUN RGB-D",
    )
    np.save(target / "split.npy", np.array([(0, 2)[split] for split, _ in names], np.int8))
    return describe(target, wanted.classes, sampled=0, oriented=True)


def _rows(options: Options, root: Path, names: list[str]) -> dict[str, np.ndarray]:
    scenes = [padded(read_scene(options, root, _table(root)[name], name), options.most_objects) for name in names]
    return {key: np.stack([scene[key] for scene in scenes]) for key in scenes[0]}


def read_scene(options: Options, root: Path, entry: Any, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of one image; raises UserError for an image without depth or with too many objects."""
    path = root / _below(entry.depthpath)
    camera, tilt = (_floats(entry, field, f"{META}: {name}", (3, 3)) for field in ("K", "Rtilt"))
    if not camera[0, 0] * camera[1, 1]:
        raise UserError(f"{META}: {name}: its K has a focal length of 0: download SUNRGBDtoolbox.zip again")
    try:
        cloud = depth_to_points(decode_depth(path), camera, tilt)
    except UserError as error:
        raise UserError(f"{error}: unpack SUNRGBD.zip again") from error
    if not len(cloud):
        raise UserError(f"{path} has no pixel with a depth: the scene {name} would have no points")
    boxes, label = read_boxes(entry, options.classes)
    if len(label) > options.most_objects:
        raise UserError(f"{name} has {len(label)} objects, more than the option most_objects {options.most_objects}")
    rng = np.random.default_rng([options.seed, *name.encode()])
    chosen = rng.choice(len(cloud), options.points, replace=len(cloud) < options.points)
    points = cloud[chosen].astype(np.float32)
    inside = memberships(points.astype(float), boxes, MEMBERSHIPS)
    return {"points": points, "inside": inside, "boxes": boxes.astype(np.float32), "label": label}


def depth_to_points(depth: np.ndarray, camera: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Return points ``[n, 3]`` (x right, y forward, z up, metres) of a stored depth image, uint16 ``[h, w]``.

    `camera` is the 3 x 3 matrix of intrinsics, `tilt` the rotation that makes the cloud upright.
    """
    stored = depth.astype(np.uint16)
    millimetres = (stored >> 3) | (stored << 13)
    metres = np.minimum(millimetres / 1000.0, MOST_DEPTH)
    row, column = np.indices(depth.shape) + 1  # Matlab counts from one
    x = (column - camera[0, 2]) * metres / camera[0, 0]
    y = (row - camera[1, 2]) * metres / camera[1, 1]
    points = np.stack([x, metres, -y], axis=-1)[stored > 0]
    return points @ tilt.T


def read_boxes(entry: Any, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes ``[n, 7]`` and labels int8 ``[n]`` of an entry's objects of `classes`.

    `coeffs` are half sizes, the first of them across; the heading is that of `orientation`. Boxes without volume are
    left out.
    """
    boxes, labels = [], []
    for number, item in enumerate(np.atleast_1d(getattr(entry, "groundtruth3DBB", np.empty(0)))):
        if getattr(item, "classname", None) not in classes:
            continue
        where = f"{META}: {_below(str(entry.sequenceName))}, object {number}"
        half, orientation, centre = (_floats(item, field, where) for field in ("coeffs", "orientation", "centroid"))
        across, along, up = np.abs(half)
        heading = np.arctan2(orientation[1], orientation[0])
        if min(across, along, up) > 0:
            boxes.append([*centre, 2 * along, 2 * across, 2 * up, heading])
            labels.append(classes.index(item.classname))
    return np.array(boxes).reshape(-1, 7), np.array(labels, np.int8)


def _floats(entry: Any, field: str, where: str, shape: tuple[int, ...] = (3,)) -> np.ndarray:
    """Return a field of an entry, `shape`; raises UserError where it is missing, of another shape or not finite."""
    try:
        values = np.asarray(getattr(entry, field), float).reshape(shape)
    except (AttributeError, TypeError, ValueError):
        values = np.full(shape, np.nan)
    if not np.isfinite(values).all():
        raise UserError(f"{where}: its {field} must be {values.size} finite numbers: download SUNRGBDtoolbox.zip again")
    return values


def read_split(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of the official training and test images, as ``SUNRGBD/kv1/...``."""
    stored = _load(root / SPLIT)
    try:
        return tuple([_below(str(path)) for path in np.atleast_1d(stored[name])] for name in ("alltrain", "alltest"))
    except KeyError as error:
        raise UserError(f"{root / SPLIT} has no {error}: it is not the official split") from None


@lru_cache(maxsize=1)
def _table(root: Path) -> Mapping[str, Any]:
    stored = _load(root / META)
    if "SUNRGBDMeta" not in stored:
        raise UserError(f"{root / META} has no SUNRGBDMeta: it is not the official file")
    return {_below(str(entry.sequenceName)): entry for entry in np.atleast_1d(stored["SUNRGBDMeta"])}


def _below(path: str) -> str:
    """The part of a path from SUNRGBD/ on: the official files name places on their makers' disks."""
    place = path.find("SUNRGBD/")
    return (path[place:] if place >= 0 else path).strip("/")


def _load(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    if not path.exists():
        raise UserError(f"{path} is missing: unpack SUNRGBDtoolbox.zip beside SUNRGBD.zip")
    try:
        return loadmat(path, squeeze_me=True, struct_as_record=False)
    except Exception as error:  # a damaged file may fail in any way
        raise UserError(f"{path} cannot be read ({error}): download SUNRGBDtoolbox.zip again") from None
