"""Procedural faces: drawings, not photographs, and of no person.

An identity is a vector of traits (outline, eyes, brows, nose, mouth, ears, hair, skin, marks); an image adds
pose, expression, light, occlusion, blur and noise. Training identities (fold 0) and test identities (folds
1..10) come from different streams, so no test identity is trained on, and an identity's images are the same
in every set of the same seed, size and strengths. The arrays are equal byte for byte on every machine (see
``drawing``).

The strengths were set so that short trainings and raw pixels stay clear of chance and of the ceiling; which loss
comes out ahead played no part.
"""

from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.faces.procedural.draws import (
    NUISANCES,
    TEST,
    TRAINING,
    draw_conditions,
    draw_noise,
    draw_traits,
)
from replications.datasets.faces.procedural.face import render
from replications.datasets.faces.procedural.pairs import FOLDS, draw_pairs, fold_of
from replications.datasets.rows import cut, fill_rows
from replications.parsing import parse

TITLE = "procedural faces"
NOTE = "drawings, not photographs; of no person"
IMAGES_A_JOB = 256
WORTH_A_POOL = 2000  # images; below, starting processes costs more than it saves


class Options(BaseModel):
    """Options of a set. Strengths of the nuisances are 1 as designed and 0 for none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    image_size: int = Field(48, ge=16, le=256, description="pixels, square")
    train_identities: int = Field(ge=2, lt=1 << 24)
    train_images_per_identity: int = Field(ge=1, lt=1 << 24)
    test_identities: int = Field(ge=2 * FOLDS, lt=1 << 24)
    test_images_per_identity: int = Field(ge=2, lt=1 << 24)
    pairs_per_fold: int = Field(ge=1, description="matched pairs of a fold; there are as many mismatched")
    pose: float = Field(1.0, ge=0, le=2)
    expression: float = Field(1.0, ge=0, le=2)
    light: float = Field(1.0, ge=0, le=2)
    occlusion: float = Field(1.0, ge=0, le=2)
    blur: float = Field(1.0, ge=0, le=2)
    noise: float = Field(1.0, ge=0, le=2)
    seed: int = Field(0, ge=0, lt=1 << 63)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Draw a set into `target` as ``<name>.npy`` and return its description; `files` is empty.

    Writes ``images`` uint8 [N, S, S, 3] (training identities first, then test identities, each one's images
    together), ``identity`` int32 [N] from 0, ``fold`` int8 [N], and the arrays of `draw_pairs`. `workers` is
    the number of processes. Raises UserError for a wrong option.
    """
    wanted = parse(Options, options, "options of the procedural faces")
    split, person, image = _rows(wanted)
    identity = (person + np.where(split == TEST, wanted.train_identities, 0)).astype(np.int32)
    fold = np.where(split == TEST, fold_of(person), 0).astype(np.int8)
    arrays = {"identity": identity, "fold": fold} | draw_pairs(identity, fold, wanted.pairs_per_fold, wanted.seed)
    for name, array in arrays.items():
        np.save(target / f"{name}.npy", array)
    fill_rows(
        target,
        {"images": ((len(person), wanted.image_size, wanted.image_size, 3), "uint8")},
        cut(np.stack([split, person, image], axis=1), IMAGES_A_JOB),
        partial(_draw_job, wanted),
        workers if len(person) > WORTH_A_POOL else 1,
        f"drawing {TITLE}",
    )
    return {
        "title": TITLE,
        "kind": "procedural",
        "note": NOTE,
        "image_size": wanted.image_size,
        "images": len(person),
        "train_images": int((split == TRAINING).sum()),
        "train_identities": wanted.train_identities,
        "test_images": int((split == TEST).sum()),
        "test_identities": wanted.test_identities,
        "folds": FOLDS,
        "pairs": len(arrays["pairs"]),
        "options": wanted.model_dump(),
    }


def draw_images(split: np.ndarray, person: np.ndarray, image: np.ndarray, options: Options) -> np.ndarray:
    """Draw image number `image` [n] of identity `person` [n] of a split (all int): uint8 [n, S, S, 3]."""
    strengths = {name: getattr(options, name) for name in NUISANCES}
    pictures = np.empty((len(person), options.image_size, options.image_size, 3), np.uint8)
    batch = max(1, 40_000 // options.image_size**2)  # a plane of the batch stays in the processor's cache
    for which in (TRAINING, TEST):
        rows = np.flatnonzero(split == which)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            names = (options.seed, which, person[part], image[part])
            traits, conditions = draw_traits(*names[:3]), draw_conditions(*names, strengths)
            noise = draw_noise(*names, options.image_size)
            pictures[part] = render(traits, conditions, noise, options.image_size)
    return pictures


def _rows(options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split, identity within the split, and image number of each row of the set (int64 [N] each)."""
    blocks = [
        (TRAINING, options.train_identities, options.train_images_per_identity),
        (TEST, options.test_identities, options.test_images_per_identity),
    ]
    split = np.concatenate([np.full(people * each, which) for which, people, each in blocks])
    person = np.concatenate([np.repeat(np.arange(people), each) for _, people, each in blocks])
    image = np.concatenate([np.tile(np.arange(each), people) for _, people, each in blocks])
    return split, person, image


def _draw_job(options: Options, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": draw_images(*rows.T, options)}
