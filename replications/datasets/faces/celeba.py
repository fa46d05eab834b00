"""CelebA: training faces with identities, aligned by their landmarks. (DeepID's CelebFaces+ is this set.)

Official files: ``img_align_celeba.zip`` (or its unpacked folder) with ``000001.jpg ...``, ``identity_CelebA.txt`` with
lines ``000001.jpg 2880``, and ``list_landmarks_align_celeba.txt``: the number of images, the names of the ten columns,
and a line for each image.
"""

import functools
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import Field

from replications.datasets.decoding import decode
from replications.datasets.extract import open_zip, read_member
from replications.datasets.faces.align import TEMPLATE_112, similarity, warp
from replications.datasets.lines import numbered_lines
from replications.datasets.litter import entries, is_litter
from replications.datasets.rows import cut, fill_rows
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

ROWS_A_JOB = 256
COLUMNS = ["lefteye", "righteye", "nose", "leftmouth", "rightmouth"]

Item = tuple[str, np.ndarray]  # member of the zip or file of the folder, matrix [2, 3]


class Options(Strict):
    """Options of the set; the counts are those that the official files must have."""

    size: int = Field(gt=0, description="width and height of the prepared images, pixels")
    num_images: int
    num_identities: int


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write images, identity and fold (all 0) into `target`; images in the order of their names.

    Identities are numbered from 0 in the order of the official numbers. Raises UserError for a wrong count, an image
    without identity or landmarks, and an identity without images.
    """
    wanted = parse(Options, options, "options of the CelebA set")
    identity_of = read_identities(files["identity"])
    landmarks = read_landmarks(files["landmarks"])
    names = _image_names(files["images"])
    if len(names) != wanted.num_images:
        raise UserError(f"{files['images']} holds {len(names)} images instead of {wanted.num_images}")
    for file, known in ((files["identity"], identity_of), (files["landmarks"], landmarks)):
        for name in names:
            if name not in known:
                raise UserError(f"{file} has no line for {name}")
        for name in known:
            if name not in names:
                raise UserError(f"{file} lists {name}, which is not in {files['images']}")
    identity = np.array([identity_of[name] for name in sorted(names)], np.int32)
    counts = np.bincount(identity, minlength=wanted.num_identities + 1)
    if counts[0] or len(counts) != wanted.num_identities + 1:
        raise UserError(f"{files['identity']} names identities outside 1..{wanted.num_identities}")
    if not counts[1:].all():
        raise UserError(f"{files['identity']}: identity {1 + int(np.argmin(counts[1:]))} has no image")
    np.save(target / "identity.npy", identity - 1)
    np.save(target / "fold.npy", np.zeros(len(identity), np.int8))

    template = (TEMPLATE_112 + 0.5) * wanted.size / 112 - 0.5
    items: list[Item] = []
    for name in sorted(names):
        try:
            items.append((names[name], similarity(landmarks[name], template)))
        except ValueError as error:
            raise UserError(f"{files['landmarks']}: {name}: {error}") from None
    function = functools.partial(aligned_rows, images=files["images"], size=wanted.size)
    shape = (len(items), wanted.size, wanted.size, 3)
    fill_rows(target, {"images": (shape, "uint8")}, cut(items, ROWS_A_JOB), function, workers, "prepare CelebA")
    return {"num_images": len(items), "num_identities": wanted.num_identities}


def read_identities(path: Path) -> dict[str, int]:
    """Parse identity_CelebA.txt: image name -> identity (1, 2, ...)."""
    identities = {}
    for number, line in numbered_lines(path):
        words = line.split()
        if len(words) != 2 or not words[1].isdecimal():
            raise UserError(f"{path}:{number}: expected an image name and the number of its identity")
        if words[0] in identities:
            raise UserError(f"{path}:{number}: {words[0]} occurs twice")
        identities[words[0]] = int(words[1])
    return identities


def read_landmarks(path: Path) -> dict[str, np.ndarray]:
    """Parse list_landmarks_align_celeba.txt: image name -> [5, 2] (x, y) in the aligned images' pixels."""
    lines = numbered_lines(path)
    columns = [f"{point}_{axis}" for point in COLUMNS for axis in "xy"]
    if len(lines) < 2 or lines[1][1].split() != columns:
        raise UserError(f"{path}:2: expected the columns {' '.join(columns)}")
    landmarks = {}
    for number, line in lines[2:]:
        name, *values = line.split()
        if name in landmarks:
            raise UserError(f"{path}:{number}: {name} occurs twice")
        try:
            landmarks[name] = np.array(values, float).reshape(5, 2)
        except ValueError:
            raise UserError(f"{path}:{number}: expected an image name and ten numbers") from None
        if not np.isfinite(landmarks[name]).all():
            raise UserError(f"{path}:{number}: a landmark of {name} is not finite")
    if lines[0][1].strip() != str(len(landmarks)):
        raise UserError(f"{path} says that it has {lines[0][1].strip()} images, and has {len(landmarks)}")
    return landmarks


def _image_names(images: Path) -> dict[str, str]:
    """Return image name -> member of the zip, or file name in the folder."""
    if images.is_dir():
        return {path.name: path.name for path in entries(images) if path.suffix == ".jpg"}
    with open_zip(images) as bundle:
        names = [name for name in bundle.namelist() if name.endswith(".jpg") and not is_litter(name)]
    found = {PurePosixPath(name).name: name for name in names}
    if len(found) < len(names):
        raise UserError(f"{images} holds {len(names) - len(found)} images whose names occur twice")
    return found


@functools.cache
def _open_zip(path: Path) -> zipfile.ZipFile:
    return open_zip(path)  # once a worker process: its directory has 200,000 entries


def aligned_rows(items: list[Item], images: Path, size: int) -> dict[str, np.ndarray]:
    """Read, decode and align some images: images uint8 [n, size, size, 3]."""
    out = np.empty((len(items), size, size, 3), np.uint8)
    for row, (name, matrix) in zip(out, items, strict=True):
        if images.is_dir():
            data: bytes | Path = images / name
        else:
            data = read_member(_open_zip(images), name)
        row[...] = np.asarray(warp(decode(data, f"{images}: {name}"), matrix, size))
    return {"images": out}
