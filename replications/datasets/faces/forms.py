"""Procedural faces in other forms: cut out as drawn, aligned in the plane, aligned with an error, or frontal.

The people, images and pairs of a form are those of the set that its option `form_of` names, so verdicts may compare
rows that are tested on both. Training images may have copies that are moved in the plane or turned in depth: one image
becomes many. All arithmetic is exact (see ``procedural.drawing``): the arrays are equal byte for byte everywhere.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from replications.datasets.faces import procedural
from replications.datasets.faces.procedural.drawing import mix, rotation
from replications.datasets.faces.procedural.draws import (
    NUISANCES,
    TRAINING,
    draw_conditions,
    draw_noise,
    draw_traits,
    uniform,
    words,
)
from replications.datasets.faces.procedural.face import render
from replications.datasets.faces.procedural.pairs import draw_pairs, fold_of
from replications.datasets.faces.procedural.scene import EXTENT
from replications.datasets.rows import cut, fill_rows
from replications.parsing import parse

CROP = 0.85  # of the canvas, so that an aligned image needs little from beyond its edge
MOVES = 4  # the stream of movements, beside those of `procedural.draws`
IMAGES_A_JOB = 256
WORTH_A_POOL = 2000


class Options(procedural.Options):
    """Options of a form: those of the drawn set, and what is made of its images."""

    form_of: str = Field("", description="the set whose people, images and pairs these are")
    form: Literal["cropped", "aligned"] = Field(
        "cropped", description="as drawn; or its known shift, turn and size undone, as exact landmarks would"
    )
    error: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="of alignment: shift (half sides) and size up to it, turn up to 100 times it in degrees",
    )
    copies: int = Field(0, ge=0, le=8, description="further copies of a training image")
    copied: Literal["moved", "turned"] = Field(
        "moved",
        description="copies are moved as far as drawn faces are, or drawn with the turn in depth of another image",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Options":
        if self.error and self.form != "aligned":
            raise ValueError("an error of alignment needs form 'aligned'")
        return self


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write what `procedural.prepare` writes, in the asked form; raises UserError for a wrong option."""
    wanted = parse(Options, options, "options of the forms of procedural faces")
    split, person, image, copy = rows_of(wanted)
    test = split != TRAINING
    identity = (person + np.where(test, wanted.train_identities, 0)).astype(np.int32)
    fold = np.where(test, fold_of(person), 0).astype(np.int8)
    arrays = {"identity": identity, "fold": fold} | draw_pairs(identity, fold, wanted.pairs_per_fold, wanted.seed)
    for name, array in arrays.items():
        np.save(target / f"{name}.npy", array)
    fill_rows(
        target,
        {"images": ((len(person), wanted.image_size, wanted.image_size, 3), "uint8")},
        cut(np.stack([split, person, image, copy], axis=1), IMAGES_A_JOB),
        partial(_draw_job, wanted),
        workers if len(person) > WORTH_A_POOL else 1,
        "drawing procedural faces",
    )
    return {
        "title": "procedural faces",
        "kind": "procedural",
        "note": procedural.NOTE,
        "image_size": wanted.image_size,
        "images": len(person),
        "train_images": int((~test).sum()),
        "pairs": len(arrays["pairs"]),
        "options": wanted.model_dump(),
    }


def rows_of(options: Options) -> tuple[np.ndarray, ...]:
    """Return split, identity, image number and copy (0: the image itself) of each row, int64 [N] each.

    Test rows come last and have no copies, as in the drawn set.
    """
    split, person, image = procedural._rows(options)
    often = np.where(split == TRAINING, 1 + options.copies, 1)
    copy = np.concatenate([np.arange(count) for count in often])
    return *(np.repeat(values, often) for values in (split, person, image)), copy


def _draw_job(options: Options, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": draw(options, *rows.T)}


def draw(options: Options, split: np.ndarray, person: np.ndarray, image: np.ndarray, copy: np.ndarray) -> np.ndarray:
    """Draw the rows in their form: uint8 [n, S, S, 3]."""
    pictures = np.empty((len(person), options.image_size, options.image_size, 3), np.uint8)
    for which in np.unique(split):
        rows = np.flatnonzero(split == which)
        pictures[rows] = _of_split(options, int(which), person[rows], image[rows], copy[rows])
    return pictures


def _of_split(options: Options, split: int, person: np.ndarray, image: np.ndarray, copy: np.ndarray) -> np.ndarray:
    shot = _conditions(options, split, person, image, copy)
    across, down = grid(options.image_size)
    if options.error or options.copied == "moved":
        across, down = moved(_movements(options, split, person, image, copy), across, down)
    if options.form == "aligned":
        across, down = moved(shot_movement(shot), across, down)
    return sampled(_drawn(options, split, person, image, copy), across, down)


def _drawn(options: Options, split: int, person: np.ndarray, image: np.ndarray, copy: np.ndarray) -> np.ndarray:
    """Draw the images themselves; copies that are only moved share one drawing."""
    names = np.stack([person, image, copy if options.copied == "turned" else np.zeros_like(copy)], axis=1)
    names, place = np.unique(names, axis=0, return_inverse=True)
    person, image, copy = names.T
    noise = draw_noise(options.seed, split, person, image, options.image_size)
    shot = _conditions(options, split, person, image, copy)
    return render(draw_traits(options.seed, split, person), shot, noise, options.image_size)[place.reshape(-1)]


def _conditions(
    options: Options, split: int, person: np.ndarray, image: np.ndarray, copy: np.ndarray
) -> SimpleNamespace:
    strengths = {name: getattr(options, name) for name in NUISANCES}
    shot = draw_conditions(options.seed, split, person, image, strengths)
    if options.copied == "turned":
        # No set has so many images of a person: the turn of a copy is that of an image that is never drawn.
        other = draw_conditions(options.seed, split, person, image + (copy << 20), strengths)
        for name in ("yaw", "yaw_more", "pitch", "pitch_more"):
            setattr(shot, name, getattr(other, name))
    return shot


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the face units, before any movement, that the pixels of a cropped image show: float32 [1, size, size]."""
    line = ((np.arange(size, dtype=np.float32) * 2 + 1) / size - 1) * np.float32(EXTENT * CROP)
    return np.broadcast_to(line[None, None, :], (1, size, size)), np.broadcast_to(line[None, :, None], (1, size, size))


def shot_movement(shot: SimpleNamespace) -> SimpleNamespace:
    """Return the movement in the plane with which an image was drawn; fields float32 [n, 1, 1]."""
    return SimpleNamespace(turn=shot.roll + shot.roll_more, scale=shot.scale, x=shot.shift_x, y=shot.shift_y)


def _movements(
    options: Options, split: int, person: np.ndarray, image: np.ndarray, copy: np.ndarray
) -> SimpleNamespace:
    """Return the errors of alignment, and the movements of copies; none for an image itself without error."""
    raw = np.stack(
        [
            words(options.seed, MOVES, split, int(p), int(i) | int(c) << 20, 4)
            for p, i, c in zip(person, image, copy, strict=True)
        ]
    )
    draws = (uniform(raw) * 2 - 1).T[:, :, None, None]
    if options.error:
        reach = np.float32(options.error)
        # Half the tangent of a turn of 100 degrees times the error, near enough: 0.8727 rad.
        turn, scale, shift = reach * np.float32(0.8727), reach, reach * np.float32(EXTENT * CROP)
    else:
        # As far as pose moves drawn faces.
        pose = np.float32(options.pose)
        turn, scale, shift = (np.float32(x) * pose for x in (0.10, 0.10, 0.08))
    still = ((copy == 0) & (options.error == 0))[:, None, None]
    fields = [
        np.where(still, np.float32(0), d * reach) for d, reach in zip(draws, (turn, scale, shift, shift), strict=True)
    ]
    return SimpleNamespace(**dict(zip(("turn", "scale", "x", "y"), fields, strict=True)))


def moved(by: SimpleNamespace, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where a movement puts the points (x, y): turned, scaled, shifted. `turn`: tangent of half the angle."""
    cos, sin = rotation(by.turn)
    scale = 1.0 + by.scale
    return (x * cos - y * sin) * scale + by.x, (y * cos + x * sin) * scale + by.y


def sampled(images: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Read images uint8 [n, S, S, 3] bilinearly at places in face units [n or 1, S, S]; the edge goes on outside."""
    count, size = images.shape[:2]
    places = []
    for place in (across, down):
        pixel = (place * np.float32(1 / EXTENT) + 1.0) * np.float32(size / 2) - np.float32(0.5)
        places.append(np.broadcast_to(np.minimum(np.maximum(pixel, 0.0), np.float32(size - 1)), (count, size, size)))
    left, top = (np.floor(place) for place in places)
    right_share, lower_share = ((place - low)[..., None] for place, low in zip(places, (left, top), strict=True))
    columns = [left.astype(np.int64), np.minimum(left + 1, size - 1).astype(np.int64)]
    lines = [top.astype(np.int64), np.minimum(top + 1, size - 1).astype(np.int64)]
    which = np.arange(count)[:, None, None]
    corner = [[images[which, line, column].astype(np.float32) for column in columns] for line in lines]
    upper, lower = (mix(one, other, right_share) for one, other in corner)
    return np.floor(mix(upper, lower, lower_share) + np.float32(0.5)).astype(np.uint8)
