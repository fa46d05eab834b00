"""ModelNet10 from solid voxels: points of surface voxels, jittered within them. No meshes, no normals.

Reads an ``.npz`` with ``X_train``, ``y_train``, ``X_test``, ``y_test``: occupancies [N, 32, 32, 32]. Empty grids are
dropped. A test grid that equals a training grid is marked in ``copy``; equal training grids lie in one split.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.extract import DAMAGE
from replications.datasets.points.clouds import normalise, splits_of, write_clouds
from replications.errors import UserError
from replications.parsing import parse

CLASSES = ("bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet")
KEYS = ("X_train", "y_train", "X_test", "y_test")
TEST = 2


class Options(BaseModel):
    """Options of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    points: int = Field(ge=1, description="of each cloud")
    validation: float = Field(gt=0, lt=1, description="share of the training shapes")
    seed: int = Field(0, ge=0)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``points`` float32 [S, P, 3] in the unit sphere, ``label``, ``split`` and ``copy``; raises UserError."""
    wanted = parse(Options, options, "voxel shapes")
    train, train_label, test, test_label = read_grids(files["voxels"])
    digests, clouds, label, split = [], [], [], []
    rng = np.random.default_rng(wanted.seed)
    empty = 0
    for number, (grids, own) in enumerate(((train, train_label), (test, test_label))):
        for grid, name in zip(grids, own, strict=True):
            occupied = grid > 0
            if not occupied.any():
                empty += 1
                continue
            clouds.append(surface_points(occupied, wanted.points, rng))
            digests.append(np.packbits(occupied).tobytes().hex())
            label.append(name)
            split.append(TEST * number)
    split = np.array(split, np.int8)
    training = {digest for digest, s in zip(digests, split, strict=True) if s != TEST}
    copy = np.array([s == TEST and d in training for d, s in zip(digests, split, strict=True)])
    split[split != TEST] = splits_of([d for d, s in zip(digests, split, strict=True) if s != TEST], wanted.validation)
    facts = write_clouds(
        target,
        CLASSES,
        points=normalise(np.stack(clouds)).astype(np.float32),
        label=np.array(label, np.int16),
        split=split,
        copy=copy,
    )
    return facts | {"empty_grids_dropped": empty, "test_copies_of_training": int(copy.sum())}


def read_grids(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training grids and labels, test grids and labels; raises UserError for another file."""
    try:
        with np.load(path) as file:
            missing = [key for key in KEYS if key not in file.files]
            if missing:
                raise UserError(f"{path} has no array '{missing[0]}' (it has: {', '.join(file.files) or 'none'})")
            arrays = tuple(file[key] for key in KEYS)
    except (OSError, TypeError, AttributeError, *DAMAGE) as error:
        raise UserError(f"{path} is not an .npz file of arrays: {error}") from error
    for grids, label in (arrays[:2], arrays[2:]):
        whole = label.dtype.kind in "iu" and label.shape == grids.shape[:1] and grids.ndim == 4
        if not whole or (len(label) and not 0 <= label.min() <= label.max() < len(CLASSES)):
            raise UserError(f"{path}: labels {list(label.shape)} of grids {list(grids.shape)} must be 0 to 9, one each")
    return arrays


def surface_points(occupied: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` points [count, 3] in voxels: in occupied voxels with an empty neighbour, anywhere inside each.

    Voxels are drawn without repetition as long as there are enough.
    """
    padded = np.pad(occupied, 1)
    inside = np.ones_like(occupied)
    for axis in range(3):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    voxels = np.argwhere(occupied & ~inside)
    rounds = -(-count // len(voxels))
    order = np.concatenate([rng.permutation(len(voxels)) for _ in range(rounds)])[:count]
    return voxels[order] + rng.random((count, 3))
