"""Tiny-ImageNet: 64x64 photographs of 200 classes, or of every second one, in the layout of the official zip.

``train/<wnid>/images/*.JPEG`` and ``val/images/*.JPEG`` with ``val/val_annotations.txt``. The labels of the official
test part are not public: ``val`` is the test set here, and validation is held out of ``train``.
"""

from pathlib import Path

from pydantic import Field

from replications.datasets.images.classified import TEST, TRAIN, ImageOptions, pictures_in, write_files
from replications.datasets.lines import numbered_lines, read_lines
from replications.errors import UserError
from replications.parsing import parse

ALL_CLASSES = 200


class Options(ImageOptions):
    """Options of the set."""

    num_classes: int = Field(ALL_CLASSES, ge=2)
    all_classes: int = Field(ALL_CLASSES, ge=2, description="that the official archive has")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write images, label, split and condition of the source ``images``; classes in the order of their WordNet ids.

    With fewer classes than the archive has, every second (third, ...) is taken; an archive with just those will do.
    """
    wanted = parse(Options, options, "options of Tiny-ImageNet")
    root = files["images"]
    listed = sorted(read_lines(root / "wnids.txt"))
    classes = sorted(set(listed))
    if len(classes) < len(listed):
        raise UserError(f"{root / 'wnids.txt'} lists a class twice")
    if len(classes) == wanted.all_classes:
        classes = classes[:: wanted.all_classes // wanted.num_classes]
    if len(classes) != wanted.num_classes:
        raise UserError(f"{root / 'wnids.txt'} lists {len(classes)} classes, the set has {wanted.num_classes}")
    index = {name: number for number, name in enumerate(classes)}
    found = [
        (path, number, TRAIN)
        for name, number in index.items()
        for path in pictures_in(root / "train" / name / "images")
    ]
    annotations = root / "val" / "val_annotations.txt"
    taken: set[str] = set()
    for number, line in numbered_lines(annotations):
        words = line.split("\t")
        if len(words) < 2:
            raise UserError(f"{annotations}:{number}: expected an image and its class, separated by a tab")
        if words[0] in taken:
            raise UserError(f"{annotations}:{number}: {words[0]} occurs twice")
        taken.add(words[0])
        if words[1].strip() in index:
            found.append((root / "val" / "images" / words[0], index[words[1].strip()], TEST))
    return {"classes": classes} | write_files(target, wanted, found, root, workers)
