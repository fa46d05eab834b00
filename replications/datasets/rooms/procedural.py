"""Procedural rooms: furniture of simple solids on a floor between walls, seen by a simulated depth camera.

A camera sees surfaces, and of those the near sides that nothing hides: the centre of a table, a tub or a bed lies in
empty space, which is why VoteNet votes. Boxes are amodal (of the whole piece) and have a heading. Each scene comes
from its own random stream, so a set is the same with any number of workers. No real room is shown.
"""

from functools import partial
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, Field, field_validator

from replications.datasets.rooms.camera import Solid, hit_parts
from replications.datasets.rooms.furniture import FURNITURE, draw_parts
from replications.datasets.rooms.layout import draw_view, place
from replications.datasets.rooms.scenes import SceneOptions, draw_until_seen, write_scenes
from replications.parsing import parse


class Options(SceneOptions):
    """Options of a set of procedural rooms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[str, ...] = Field(tuple(FURNITURE), min_length=1)

    @field_validator("classes")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in FURNITURE]
        if unknown:
            raise ValueError(f"no furniture '{unknown[0]}': there are {', '.join(FURNITURE)}")
        return value


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write a set of scenes (see ``rooms.scenes.write_scenes``); `files` is empty."""
    wanted = parse(Options, options, "options of the procedural rooms")
    return write_scenes(target, wanted, wanted.classes, partial(draw_scene, wanted), workers, "drawing rooms")


def draw_scene(options: Options, split: int, index: int) -> dict[str, np.ndarray]:
    """Return the arrays of one scene of a split."""
    rng = np.random.default_rng([options.seed, split, index])
    return draw_until_seen(options, partial(_furnish, options), rng)


def _furnish(options: Options, rng: np.random.Generator):
    view = draw_view(rng, np.radians(options.view))
    solids, labels = [], []
    wanted = rng.integers(options.objects[0], options.objects[1] + 1)
    for label in rng.permutation(np.resize(rng.permutation(len(options.classes)), wanted)):
        name = options.classes[label]
        parts, size = draw_parts(name, rng)
        box = place(size, FURNITURE[name][1], [solid.box for solid in solids], view, rng)
        if box is not None:
            solids.append(Solid(box, hit_parts(parts)))
            labels.append(int(label))
    return view, solids, labels
