"""PASCAL VOC's layout: ``VOCdevkit/VOC2007/{JPEGImages,Annotations,ImageSets/Main}``.

Boxes are 1-based and include their last pixel. Objects marked "difficult" are neither trained on nor counted as misses:
they become crowds, which COCO's evaluation ignores. Areas are those of the boxes. (VOC's own AP, of 2007 with eleven
recall points, is another number: COCO's is reported.)
"""

from pathlib import Path
from xml.etree import ElementTree

from pydantic import Field

from replications.datasets.detection.coco import TEST, TRAIN, VALIDATION
from replications.datasets.detection.fields import finite, repeated, shown
from replications.datasets.detection.form import Entry, Object, Tree, write_set
from replications.datasets.lines import lines_of
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Options(Strict):
    """Options of a set: for each split the lists of image names, as ``VOC2007/trainval``."""

    train: tuple[str, ...] = Field(min_length=1)
    validation: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = Field(min_length=1)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write a set in the form of `replications.datasets.detection.form`; each of `files` is a folder ``VOCdevkit``."""
    wanted = parse(Options, options, "options of the VOC set")
    trees = [Tree(path) for path in files.values()]
    entries: list[Entry] = []
    for split, lists in ((TRAIN, wanted.train), (VALIDATION, wanted.validation), (TEST, wanted.test)):
        for name in lists:
            entries += read_list(trees, name, split, len(entries) + 1)
    if (twice := repeated(entry.name for entry in entries)) is not None:
        raise UserError(f"VOC: image {twice} is in two splits, or twice in one")
    return write_set(target, entries, CLASSES, range(1, len(CLASSES) + 1), "copying images", workers)


def read_list(trees: list[Tree], name: str, split: int, first_id: int) -> list[Entry]:
    """Return the images of a list (``VOC2007/trainval``) in its order."""
    year, _, list_name = name.partition("/")
    path = f"{year}/ImageSets/Main/{list_name}.txt"
    tree = next((tree for tree in trees if path in tree), None)
    if tree is None:
        raise UserError(f"VOC: no {path} in {', '.join(str(tree.path) for tree in trees)}")
    names = [line.split()[0] for line in lines_of(tree.read(path), f"{tree.path}: {path}")]
    if not names:
        raise UserError(f"{tree.path}: {path} lists no image")
    return [_entry(tree, year, image, split, first_id + index) for index, image in enumerate(names)]


def _entry(tree: Tree, year: str, image: str, split: int, image_id: int) -> Entry:
    name = f"{year}/Annotations/{image}.xml"
    where = f"{tree.path}: {name}"
    try:
        root = ElementTree.fromstring(tree.read(name))
        size = int(root.findtext("size/height")), int(root.findtext("size/width"))
    except (ElementTree.ParseError, TypeError, ValueError, LookupError) as error:
        raise UserError(f"{where} is not an annotation of VOC ({error})") from error
    objects = [_object(element, f"{where}, object {place}") for place, element in enumerate(root.iter("object"), 1)]
    picture = f"{year}/JPEGImages/{image}.jpg"
    return Entry(picture, image_id, split, size, objects, lambda: tree.read(picture))


def _object(element: ElementTree.Element, where: str) -> Object:
    name = element.findtext("name")
    if name not in CLASSES:
        raise UserError(f"{where}: {shown(name)} is not a class of VOC")
    texts = [element.findtext(f"bndbox/{side}", "") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (finite(float(text)) for text in texts)
        if not (left <= right and top <= bottom):
            raise ValueError("a box that ends before it begins")
    except (TypeError, ValueError):
        raise UserError(f"{where}: its box (xmin, ymin, xmax, ymax) is {shown(texts)}") from None
    box = left - 1, top - 1, right, bottom
    area = max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
    return Object(box, CLASSES.index(name), element.findtext("difficult") == "1", area)
