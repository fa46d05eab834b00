"""Photographs in class folders, ``<root>/{train,val}/<class>/<image>``: ImageNet, Imagenette, Imagewoof, ImageNet-100.

``val`` is the test set of the suite: nothing is chosen on it. Validation is held out of ``train``.
"""

from pathlib import Path

from pydantic import Field

from replications.datasets.images.classified import TEST, TRAIN, ImageOptions, pictures_in, write_files
from replications.datasets.litter import entries
from replications.errors import UserError
from replications.parsing import parse


class Options(ImageOptions):
    """Options of the set."""

    num_classes: int = Field(ge=2, description="class folders that there must be")
    classes: tuple[str, ...] | None = Field(None, description="the class folders to take; null: all")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write images, label, split and condition of the source ``images``; classes in the order of their names.

    Raises UserError for a missing folder, a wrong number of classes, and as `write_photographs`.
    """
    wanted = parse(Options, options, "options of the image tree")
    root = files["images"]
    if not (root / "train").is_dir() or not (root / "val").is_dir():
        raise UserError(f"{root} has no folders train and val: the set is not in its official layout")
    classes = sorted(wanted.classes or [path.name for path in entries(root / "train") if path.is_dir()])
    if len(classes) != wanted.num_classes:
        raise UserError(f"{root / 'train'} has {len(classes)} classes instead of {wanted.num_classes}")
    found = [
        (path, index, split)
        for folder, split in (("train", TRAIN), ("val", TEST))
        for index, name in enumerate(classes)
        for path in pictures_in(root / folder / name)
    ]
    return {"classes": classes} | write_files(target, wanted, found, root, workers)
