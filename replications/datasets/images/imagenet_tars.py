"""ImageNet-1k from its official archives, without unpacking them.

``ILSVRC2012_img_train.tar`` holds a tar for each class, ``ILSVRC2012_img_val.tar`` the validation images, and the
development kit says which class each of those is of. They are the test set of the suite.
"""

import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import Field

from replications.datasets.extract import tar_files
from replications.datasets.images.classified import ROWS_A_JOB, TEST, TRAIN, ImageOptions, Item, write_photographs
from replications.datasets.lines import text_of
from replications.datasets.litter import is_litter
from replications.datasets.rows import Job
from replications.errors import UserError
from replications.parsing import parse


class Options(ImageOptions):
    """Options of the set; the counts are those that the official archives must have."""

    num_classes: int = Field(1000, ge=2)
    num_train: int = Field(1_281_167, ge=1)
    num_test: int = Field(50_000, ge=1)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write images, label, split and condition of the sources ``train``, ``val`` and ``devkit``.

    Raises UserError where an archive has other counts than the official one, and as `write_photographs`.
    """
    wanted = parse(Options, options, "options of the ImageNet archives")
    classes, truth = read_devkit(files["devkit"], wanted.num_classes)
    if len(truth) != wanted.num_test:
        raise UserError(f"{files['devkit']} has the classes of {len(truth)} images instead of {wanted.num_test}")
    index = {name: number for number, name in enumerate(classes)}
    total = wanted.num_train + wanted.num_test
    names: list[str] = []
    label, split = np.zeros(total, np.int32), np.zeros(total, np.int8)

    def jobs() -> Iterator[Job]:
        waiting: list[Item] = []
        for name, data, label_of_it, split_of_it in _pictures(files, index, truth):
            if len(names) == total:
                raise UserError(f"{files['train']} and {files['val']} hold more than {total} images")
            label[len(names)], split[len(names)] = label_of_it, split_of_it
            names.append(name)
            waiting.append((name, data))
            if len(waiting) == ROWS_A_JOB or len(names) == total:
                yield Job(len(names) - len(waiting), len(waiting), waiting)
                waiting = []
        found = (int((split[: len(names)] == TRAIN).sum()), int((split[: len(names)] == TEST).sum()))
        if found != (wanted.num_train, wanted.num_test):
            raise UserError(
                f"{files['train']} and {files['val']} hold {found[0]} and {found[1]} images instead of "
                f"{wanted.num_train} and {wanted.num_test}"
            )

    facts = write_photographs(target, wanted, names, label, split, jobs, workers, "ImageNet")
    return {"classes": classes} | facts


def _pictures(
    files: dict[str, Path], index: dict[str, int], truth: dict[str, str]
) -> Iterator[tuple[str, bytes, int, int]]:
    """Yield name, bytes, class and split of the training images, class by class, then of the validation images."""
    for member, stream in tar_files(files["train"]):
        if is_litter(member):
            continue
        wnid = PurePosixPath(member).stem
        if wnid not in index:
            raise UserError(f"{files['train']}: {member} is not a class of the development kit")
        for name, picture in tar_files(files["train"], io.BytesIO(stream.read()), member):
            if not is_litter(name):
                yield f"{member}/{name}", picture.read(), index[wnid], TRAIN
    for member, stream in tar_files(files["val"]):
        name = PurePosixPath(member).name
        if is_litter(member):
            continue
        if name not in truth:
            raise UserError(f"{files['val']}: the development kit has no class for {member}")
        yield name, stream.read(), index[truth[name]], TEST


def read_devkit(archive: Path, num_classes: int) -> tuple[list[str], dict[str, str]]:
    """Return the classes (WordNet ids, sorted) and the class of each validation image, by its file's name."""
    from scipy.io import loadmat

    found = {}
    for member, stream in tar_files(archive):
        name = PurePosixPath(member).name
        if name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
            found[name] = stream.read()
    if len(found) != 2:
        raise UserError(f"{archive} is not the development kit: it lacks meta.mat or the validation ground truth")
    numbers = text_of(found["ILSVRC2012_validation_ground_truth.txt"], f"{archive}: the ground truth").split()
    try:
        synsets = loadmat(io.BytesIO(found["meta.mat"]), squeeze_me=True)["synsets"]
        wnid = {int(entry["ILSVRC2012_ID"]): str(entry["WNID"]) for entry in synsets}
        classes = sorted(wnid[number] for number in range(1, num_classes + 1))
        truth = {f"ILSVRC2012_val_{place:08d}.JPEG": wnid[int(number)] for place, number in enumerate(numbers, 1)}
    except (KeyError, IndexError, TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{archive} is not the development kit: its classes cannot be read ({type(error).__name__}: {error})"
        ) from error
    return classes, truth
