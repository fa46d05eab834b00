"""ShapeNet part (Yi et al. 2016) in the layout ``shapenetcore_partanno_segmentation_benchmark_v0_normal``.

``synsetoffset2category.txt`` names 16 categories and their folders; a shape is a text file of rows
x y z nx ny nz part; ``train_test_split/shuffled_{train,val,test}_file_list.json`` are the owner's lists.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.lines import read_lines
from replications.datasets.points.clouds import first_points, normalise, whole_labels, write_clouds
from replications.datasets.points.modelnet40 import read_text
from replications.datasets.rows import cut, fill_rows
from replications.errors import UserError
from replications.parsing import parse

ROWS_A_JOB = 64
LISTS = ("train", "val", "test")
# Numbers of the parts of each category, as all public code has them.
PARTS = {
    "Airplane": 4, "Bag": 2, "Cap": 2, "Car": 4, "Chair": 4, "Earphone": 3, "Guitar": 3, "Knife": 2, "Lamp": 4,
    "Laptop": 2, "Motorbike": 6, "Mug": 2, "Pistol": 3, "Rocket": 3, "Skateboard": 3, "Table": 3,
}  # fmt: skip


class Options(BaseModel):
    """Options of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    points: int = Field(ge=1)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``points``, ``normals``, ``part`` uint8 [S, P], ``label`` and ``split`` from the source ``shapes``.

    The owner's lists say the split. A cloud's points are shuffled (a fixed order a shape) before the first are taken:
    the files are not in random order. Raises UserError.
    """
    wanted = parse(Options, options, "ShapeNet part")
    root = files["shapes"]
    categories = [line.split() for line in read_lines(root / "synsetoffset2category.txt")]
    if any(len(words) != 2 for words in categories) or len(dict(categories)) < len(categories):
        raise UserError(f"{root / 'synsetoffset2category.txt'}: expected a category and its folder a line, each once")
    folders = {folder: name for name, folder in categories}
    unknown = sorted(set(folders.values()) - set(PARTS))
    if unknown:
        raise UserError(f"{root}: '{unknown[0]}' is not a category of ShapeNet part")
    names = sorted(folders.values())
    shapes, split = [], []
    for number, name in enumerate(LISTS):
        own = _names(root / "train_test_split" / f"shuffled_{name}_file_list.json")
        shapes += own
        split += [number] * len(own)
    label = []
    for shape in shapes:
        if shape.split("/")[0] not in folders:
            raise UserError(f"{root}: shape '{shape}' is in a folder that belongs to no category")
        label.append(names.index(folders[shape.split("/")[0]]))
    form = ((len(shapes), wanted.points, 3), "float32")
    fill_rows(
        target,
        {"points": form, "normals": form, "part": (form[0][:2], "uint8")},
        cut(shapes, ROWS_A_JOB),
        partial(_read_shapes, root, wanted.points),
        workers,
        "reading shapes",
    )
    # The numbers in the files run through the categories in the order of their names.
    bounds = np.cumsum([0, *(PARTS[name] for name in names)])
    facts = write_clouds(target, names, label=np.array(label, np.int16), split=np.array(split, np.int8))
    return facts | {
        "parts": [f"{name} {i}" for name in names for i in range(PARTS[name])],
        "class_parts": [list(range(bounds[i], bounds[i + 1])) for i in range(len(names))],
    }


def _names(path: Path) -> list[str]:
    try:
        return ["/".join(name.split("/")[1:]) for name in json.loads(path.read_bytes())]  # shape_data/<folder>/<name>
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _read_shapes(root: Path, points: int, shapes: list[str]) -> dict[str, np.ndarray]:
    rows = []
    for shape in shapes:
        cloud = read_text(root / f"{shape}.txt", 7)
        whole_labels(cloud[:, 6], f"{root / shape}.txt: column 7")
        rows.append(first_points(cloud[np.random.default_rng(len(cloud)).permutation(len(cloud))], points))
    clouds = np.stack(rows)
    return {
        "points": normalise(clouds[..., :3].astype(np.float64)).astype(np.float32),
        "normals": clouds[..., 3:6],
        "part": clouds[..., 6].astype(np.uint8),
    }
