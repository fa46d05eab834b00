"""ScanNet v2 (Dai et al. 2017) as blocks of scenes for semantic segmentation, from the official layout.

Reads ``scans/<scene>/<scene>_vh_clean_2.ply`` (vertices) and ``..._vh_clean_2.labels.ply`` (their ``label``, an id of
NYU40), and the lists ``scannetv2_train.txt`` and ``scannetv2_val.txt``. The validation scenes are this set's test
split: labels of the test scenes are not public. A block is a column of the scene, 1.5 m by 1.5 m.
"""

from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.lines import read_lines
from replications.datasets.ply import positions, read_vertices
from replications.datasets.points.clouds import check_cloud, first_points, splits_of, write_clouds
from replications.datasets.rows import cut, fill_rows
from replications.errors import UserError
from replications.parsing import parse

# The 20 classes of the benchmark and their ids of NYU40; all other ids are unlabelled.
CLASSES = {
    "wall": 1, "floor": 2, "cabinet": 3, "bed": 4, "chair": 5, "sofa": 6, "table": 7, "door": 8, "window": 9,
    "bookshelf": 10, "picture": 11, "counter": 12, "desk": 14, "curtain": 16, "refrigerator": 24,
    "shower curtain": 28, "toilet": 33, "sink": 34, "bathtub": 36, "otherfurniture": 39,
}  # fmt: skip
TEST = 2
MOST_LABELS = 1 << 16


class Options(BaseModel):
    """Options of a set. Lengths are metres."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    points: int = Field(8192, ge=1, description="of a block")
    block: float = Field(1.5, gt=0)
    train_blocks: int = Field(8, ge=1, description="of each training scene, around random points")
    test_blocks: int = Field(16, ge=1, description="of each test scene, the fullest of a grid")
    validation: float = Field(0.05, gt=0, lt=1, description="share of the training scenes")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``points`` float32 [S, P, 3] (metres, centred in x and y, z from the block's floor), ``part`` int8 [S, P]
    (-1: unlabelled), ``label`` (0) and ``split``; source ``scans``. Raises UserError.
    """
    wanted = parse(Options, options, "ScanNet")
    root = files["scans"]
    scenes = {part: read_lines(root / f"scannetv2_{part}.txt") for part in ("train", "val")}
    rows = [(scene, i, True) for scene in scenes["train"] for i in range(wanted.train_blocks)]
    rows += [(scene, i, False) for scene in scenes["val"] for i in range(wanted.test_blocks)]
    held_out = dict(zip(scenes["train"], splits_of(scenes["train"], wanted.validation), strict=True))
    split = np.array([held_out[scene] if train else TEST for scene, _, train in rows], np.int8)
    shape = (len(rows), wanted.points)
    fill_rows(
        target,
        {"points": ((*shape, 3), "float32"), "part": (shape, "int8")},
        cut(rows, max(wanted.train_blocks, wanted.test_blocks)),
        partial(_blocks, root, wanted),
        workers,
        "cutting scenes",
    )
    facts = write_clouds(target, ["scene"], label=np.zeros(len(rows), np.int16), split=split)
    return facts | {"parts": list(CLASSES), "class_parts": [list(range(len(CLASSES)))], "pooled": True}


def _blocks(root: Path, wanted: Options, rows: list[tuple[str, int, bool]]) -> dict[str, np.ndarray]:
    points, parts, opened = [], [], {}
    for scene, number, train in rows:
        if scene not in opened:
            opened = {scene: read_scene(root, scene)}
        cloud, part = opened[scene]
        rng = np.random.default_rng([number, *scene.encode()])
        corner = random_corner(cloud, wanted.block, rng) if train else grid_corner(cloud, wanted.block, number)
        inside = ((cloud[:, :2] >= corner) & (cloud[:, :2] < corner + wanted.block)).all(1)
        chosen = first_points(rng.permutation(np.flatnonzero(inside)), wanted.points)
        block = cloud[chosen] - [*(corner + wanted.block / 2), cloud[inside, 2].min()]
        points.append(block.astype(np.float32))
        parts.append(part[chosen])
    return {"points": np.stack(points), "part": np.stack(parts)}


def random_corner(cloud: np.ndarray, block: float, rng: np.random.Generator) -> np.ndarray:
    """Return the lower corner [2] of a block around a random point of the scene."""
    return cloud[rng.integers(len(cloud)), :2] - block / 2


def grid_corner(cloud: np.ndarray, block: float, number: int) -> np.ndarray:
    """Return the lower corner [2] of block `number` of a grid over the scene, fullest first; beyond the last, again."""
    low = cloud[:, :2].min(0)
    cell, count = np.unique(((cloud[:, :2] - low) / block).astype(int), axis=0, return_counts=True)
    order = np.argsort(-count, kind="stable")
    return low + cell[order[number % len(order)]] * block


def read_scene(root: Path, scene: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a scene's vertices float32 [n, 3] and their class int8 [n], -1 where unlabelled; raises UserError."""
    folder = root / "scans" / scene
    vertices = read_vertices(folder / f"{scene}_vh_clean_2.ply")
    labels = read_vertices(folder / f"{scene}_vh_clean_2.labels.ply")
    if "label" not in labels.dtype.names:
        raise UserError(f"{folder}: the labels file has no property 'label'")
    if len(vertices) != len(labels):
        raise UserError(f"{folder}: {len(vertices)} vertices but {len(labels)} labels")
    cloud = check_cloud(positions(vertices, folder), str(folder / f"{scene}_vh_clean_2.ply"))
    label = labels["label"]
    if label.dtype.kind not in "iu" or not 0 <= label.min() <= label.max() < MOST_LABELS:
        raise UserError(f"{folder}: labels must be whole numbers, 0 or more, not {label.min()} .. {label.max()}")
    table = np.full(MOST_LABELS, -1, np.int8)
    table[list(CLASSES.values())] = np.arange(len(CLASSES))
    return cloud, table[label]
