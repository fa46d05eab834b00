"""ScanNet v2 (Dai et al. 2017) for 3-D detection: axis-aligned boxes around instances of the aligned meshes.

Reads the official layout: ``scans/<scene>/<scene>_vh_clean_2.ply``, ``..._vh_clean_2.0.010000.segs.json``,
``<scene>.aggregation.json`` (older releases: ``<scene>_vh_clean.aggregation.json``) and ``<scene>.txt`` with the axis
alignment; ``scannetv2-labels.combined.tsv``; ``scannetv2_train.txt`` and ``scannetv2_val.txt``. Points are mesh
vertices. A point belongs to its instance, whose box is that of all its vertices.
"""

import csv
import json
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from replications.datasets.lines import read_text
from replications.datasets.ply import positions, read_vertices
from replications.datasets.rooms.scene import MEMBERSHIPS
from replications.datasets.rooms.scenes import describe, padded
from replications.datasets.rows import cut, fill_rows, require_finite
from replications.errors import UserError
from replications.parsing import parse

LABELS = "scannetv2-labels.combined.tsv"
LISTS = ("scannetv2_train.txt", "scannetv2_val.txt")
SCENES_A_JOB = 4


class Options(BaseModel):
    """Options of a set. `nyu40_ids` are the ids of `classes`, in the same order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[str, ...] = Field(min_length=1)
    nyu40_ids: tuple[int, ...]
    points: int = Field(ge=1, description="stored of each scene; a scene with fewer repeats some")
    most_objects: int = Field(96, ge=1, le=127)
    scenes: tuple[int, int] | None = Field(None, description="how many there must be, train and validation")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _as_many(self) -> "Options":
        if len(self.nyu40_ids) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes and {len(self.nyu40_ids)} nyu40_ids")
        return self


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write scenes (see ``rooms.scenes.write_scenes``) of the source ``scans``. The validation list is the test part,
    as in the paper. Raises UserError where a file is missing or another."""
    wanted = parse(Options, options, "options of ScanNet")
    root = files["scans"]
    parts = [read_text(root / name).split() for name in LISTS]
    if wanted.scenes is not None and tuple(map(len, parts)) != wanted.scenes:
        raise UserError(f"{root} lists {[len(part) for part in parts]} scenes, expected {list(wanted.scenes)}")
    names = [name for part in parts for name in part]
    total = len(names)
    fill_rows(
        target,
        {
            "points": ((total, wanted.points, 3), "float32"),
            "inside": ((total, wanted.points, MEMBERSHIPS), "int8"),
            "boxes": ((total, wanted.most_objects, 7), "float32"),
            "label": ((total, wanted.most_objects), "int8"),
        },
        cut(names, SCENES_A_JOB),
        partial(_rows, wanted, root),
        workers,
        "reading ScanNet",
    )
    np.save(target / "split.npy", np.repeat(np.array([0, 2], np.int8), [len(part) for part in parts]))
    return describe(target, wanted.classes, sampled=0, oriented=False)


def _rows(options: Options, root: Path, names: list[str]) -> dict[str, np.ndarray]:
    scenes = [padded(read_scene(options, root, name), options.most_objects) for name in names]
    return {key: np.stack([scene[key] for scene in scenes]) for key in scenes[0]}


def read_scene(options: Options, root: Path, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of one scan; raises UserError where its files do not fit each other."""
    folder = root / "scans" / name
    mesh = folder / f"{name}_vh_clean_2.ply"
    vertices = positions(read_vertices(mesh), mesh).astype(np.float64)
    require_finite(vertices, f"{mesh}: vertices")
    alignment = read_alignment(folder / f"{name}.txt")
    vertices = vertices @ alignment[:3, :3].T + alignment[:3, 3]
    segments = _integers(_json(folder / f"{name}_vh_clean_2.0.010000.segs.json"), "segIndices", folder)
    if len(segments) != len(vertices):
        raise UserError(f"{folder}: {len(vertices)} vertices and {len(segments)} segment indices: files of two scans")
    aggregation = folder / f"{name}.aggregation.json"
    if not aggregation.exists():
        aggregation = folder / f"{name}_vh_clean.aggregation.json"
    ids, boxes, labels = _nyu40(root), [], []
    instance = np.full(len(vertices), -1, np.int8)
    groups = _json(aggregation).get("segGroups")
    if not isinstance(groups, list):
        raise UserError(f"{aggregation} has no list segGroups: download it again")
    for number, group in enumerate(groups):
        if not isinstance(group, dict) or not isinstance(group.get("label"), str):
            raise UserError(f"{aggregation}: group {number} has no label: download it again")
        nyu40 = ids.get(group["label"], 0)
        own = np.isin(segments, _integers(group, "segments", f"{aggregation}: group {number}"))
        if nyu40 not in options.nyu40_ids or not own.any():
            continue
        low, high = vertices[own].min(0), vertices[own].max(0)
        if (high <= low).any():
            continue  # a flat patch has no volume
        if len(boxes) == options.most_objects:
            raise UserError(f"{name} has more objects than the option most_objects {options.most_objects}")
        instance[own] = len(boxes)
        boxes.append([*(low + high) / 2, *(high - low), 0.0])
        labels.append(options.nyu40_ids.index(nyu40))
    rng = np.random.default_rng([options.seed, *name.encode()])
    chosen = rng.choice(len(vertices), options.points, replace=len(vertices) < options.points)
    inside = np.full((options.points, MEMBERSHIPS), -1, np.int8)
    inside[:, 0] = instance[chosen]
    with np.errstate(over="ignore"):  # infinite values are rejected when they are written
        points, boxes = vertices[chosen].astype(np.float32), np.array(boxes, np.float32).reshape(-1, 7)
    return {"points": points, "inside": inside, "boxes": boxes, "label": np.array(labels, np.int8)}


def read_alignment(path: Path) -> np.ndarray:
    """Return the 4 x 4 axis alignment of a scan; the identity where its file names none (the test scans)."""
    for line in read_text(path).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            try:
                alignment = np.array(value.split(), float).reshape(4, 4)
            except ValueError:
                alignment = np.full((4, 4), np.nan)
            if not np.isfinite(alignment).all():
                raise UserError(f"{path}: axisAlignment must be 16 finite numbers: download it again")
            return alignment
    return np.eye(4)


@lru_cache(maxsize=1)
def _nyu40(root: Path) -> dict[str, int]:
    rows = csv.DictReader(read_text(root / LABELS).splitlines(), delimiter="\t")
    try:
        return {row["raw_category"]: int(row["nyu40id"]) for row in rows}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{root / LABELS} has no columns raw_category and nyu40id ({error})") from None


def _json(path: Path) -> dict:
    try:
        content = json.loads(read_text(path))
        if not isinstance(content, dict):
            raise ValueError("no object")
        return content
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): download it again") from None


def _integers(content: dict, key: str, where: Path | str) -> np.ndarray:
    """Return a list of whole numbers; raises UserError for anything else."""
    values = content.get(key)
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise UserError(f"{where}: {key} must be a list of whole numbers: download it again")
    try:
        return np.array(values, np.int64)
    except OverflowError:
        raise UserError(f"{where}: {key} has a number beyond 64 bits: download it again") from None
