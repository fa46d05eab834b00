"""Training faces in identity folders: ``<root>/<identity>/<image>.jpg`` (CASIA-WebFace as it was published)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from replications.datasets.decoding import face_rows
from replications.datasets.litter import entries, pictures
from replications.datasets.rows import cut, fill_rows
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

ROWS_A_JOB = 256


class Options(Strict):
    """Options of the set."""

    image_size: int | None = Field(description="width and height that the images must have, pixels; null: any")
    crop: tuple[int, int, int, int] | None = Field(description="left, upper, right, lower, pixels; null: all")
    size: int = Field(gt=0, description="width and height of the prepared images, pixels")
    exclude: tuple[str, ...] = Field((), description="identities (folder names) left out, such as those of a test set")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write images, identity and fold (all 0) into `target`; identities and images in the order of their names.

    Raises UserError for an identity without images and for an excluded one that is not there.
    """
    wanted = parse(Options, options, "options of the folder set")
    root = files["images"]
    people = {folder.name: folder for folder in entries(root) if folder.is_dir()}
    for name in wanted.exclude:
        if people.pop(name, None) is None:
            raise UserError(f"{root} has no identity {name}, which is to be left out")
    paths: list[Path] = []
    counts = []
    for folder in people.values():
        images = pictures(entries(folder))
        if not images:
            raise UserError(f"{folder} has no image: an identity without images")
        counts.append(len(images))
        paths += images
    if not paths:
        raise UserError(f"{root} has no identity folders")
    np.save(target / "identity.npy", np.repeat(np.arange(len(counts), dtype=np.int32), counts))
    np.save(target / "fold.npy", np.zeros(len(paths), np.int8))
    function = partial(_rows, image_size=wanted.image_size, crop=wanted.crop, size=wanted.size)
    shape = (len(paths), wanted.size, wanted.size, 3)
    fill_rows(target, {"images": (shape, "uint8")}, cut(paths, ROWS_A_JOB), function, workers, f"prepare {root.name}")
    return {"num_images": len(paths), "num_identities": len(counts), "excluded": list(wanted.exclude)}


def _rows(paths: Sequence[Path], **form) -> dict[str, np.ndarray]:
    return face_rows([(str(path), path) for path in paths], **form)
