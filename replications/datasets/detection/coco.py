"""Sets in COCO's layout: ``instances_*.json`` and folders of images; COCO 2017 itself, parts of it, and others.

Annotations are taken as COCO's own tools take them: category ids may have gaps, images may have no object, boxes may be
empty or reach out of the image, crowds may have run-length masks; ``iscrowd`` and ``area`` may be left out, and fields
that are not used may be there. What those tools would pass over in silence and no honest file has is refused, with
the id: an id that occurs twice or is no whole number, an annotation of an image or category that is not listed, a box
that is no four numbers, an area that is none, a file that two images name, an image whose file is missing.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from replications.datasets.detection.fields import MISSING, finite, inner_path, is_name, repeated, shown, whole
from replications.datasets.detection.form import Entry, Object, Tree, write_set
from replications.datasets.detection.segmentation import box_of
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

TRAIN, VALIDATION, TEST = range(3)
MOST_PIXELS = 1e30  # that a box may have


class Part(Strict):
    """Annotations and images of a split: a source (role) each, and their paths in it."""

    annotations: str = Field(description="path of the JSON file in its source")
    annotations_in: str = "images"
    folder: str = Field("", description="folder of the images in their source")
    images_in: str = "images"


class Options(Strict):
    """Options of a set. Without a separate part, validation images are drawn from the training images."""

    train: Part
    validation: Part | None = None
    test: Part
    validation_images: int | None = Field(None, gt=0, description="how many are drawn")
    train_images: int | None = Field(None, gt=0, description="a seeded part of what remains; null: all")
    categories: int = Field(gt=0, description="how many there must be")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_validation(self) -> "Options":
        if (self.validation is None) == (self.validation_images is None):
            raise ValueError("give either 'validation' or 'validation_images'")
        return self


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write a set in the form of `replications.datasets.detection.form`; `files` are zips or folders by role."""
    wanted = parse(Options, options, "options of the COCO set")
    trees: dict[str, Tree] = {}

    def tree(role: str) -> Tree:
        if role not in files:
            raise UserError(f"options of the COCO set: there is no source '{role}' (there are: {', '.join(files)})")
        return trees.setdefault(role, Tree(files[role]))

    categories: list[dict[str, Any]] | None = None
    splits: dict[int, list[Entry]] = {}
    for split, part in ((TRAIN, wanted.train), (VALIDATION, wanted.validation), (TEST, wanted.test)):
        if part is None:
            continue
        where = f"{files[part.annotations_in]}: {part.annotations}"
        own, splits[split] = read_part(tree(part.annotations_in), part, tree(part.images_in), split, where)
        if categories is not None and own != categories:
            raise UserError(f"{where} has different categories from the training annotations")
        categories = own
    if len(categories) != wanted.categories:
        raise UserError(f"{where} has {len(categories)} categories, expected {wanted.categories}")
    if wanted.validation is None:
        splits[TRAIN], splits[VALIDATION] = draw_parts(
            splits[TRAIN], wanted.train_images, wanted.validation_images, wanted.seed
        )
    elif wanted.train_images is not None:
        splits[TRAIN], _ = draw_parts(splits[TRAIN], wanted.train_images, 0, wanted.seed)
    entries = [*splits[TRAIN], *splits[VALIDATION], *splits[TEST]]
    names, ids = [c["name"] for c in categories], [c["id"] for c in categories]
    facts = write_set(target, entries, names, ids, "copying images", workers)
    return facts | {"splits": [len(splits[split]) for split in (TRAIN, VALIDATION, TEST)]}


def draw_parts(entries: list[Entry], train: int | None, validation: int, seed: int) -> tuple[list[Entry], list[Entry]]:
    """Draw validation images, then training images, from those in the order of their ids: the same on every machine."""
    order = np.random.default_rng(seed).permutation(len(entries))
    train = len(entries) - validation if train is None else train
    if train < 1 or train + validation > len(entries):
        raise UserError(f"{train} training and {validation} validation images of {len(entries)}: too many")
    held, kept = np.sort(order[:validation]), np.sort(order[validation : validation + train])
    as_validation = [Entry(**{**entries[i].__dict__, "split": VALIDATION}) for i in held]
    return [entries[i] for i in kept], as_validation


def read_part(
    annotations: Tree, part: Part, images: Tree, split: int, where: str
) -> tuple[list[dict[str, Any]], list[Entry]]:
    """Return the categories by id, and the images by id with their objects; raises UserError for a damaged file."""
    try:
        content = json.loads(annotations.read(part.annotations))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not in COCO's layout ({type(error).__name__}: {error})") from error
    categories = sorted(read_categories(content, where), key=lambda category: category["id"])
    label = {category["id"]: index for index, category in enumerate(categories)}
    listed = read_images(content, part, where)
    objects: dict[int, list[Object]] = {image_id: [] for image_id in listed}
    for _, name, annotation in _by_id(content, "annotations", "annotation", where):
        image_id, category_id = (whole(annotation, field, name) for field in ("image_id", "category_id"))
        if image_id not in listed:
            raise UserError(f"{name} is of image {image_id}, which is not listed: remove it")
        if category_id not in label:
            raise UserError(f"{name} has the category {category_id}, which is not listed")
        objects[image_id].append(read_object(annotation, label[category_id], *listed[image_id][1], name))
    entries = []
    for image_id, (path, size) in sorted(listed.items()):
        if path not in images:
            raise UserError(f"{where}: image {image_id}: it lists the image {path}, which {images.path} does not have")
        file = f"{images.path}: {path}"
        entries.append(Entry(file, image_id, split, size, objects[image_id], _reader(images, path)))
    return categories, entries


def _by_id(content: Any, field: str, kind: str, where: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Return id, name for messages, and row of a list of the file; raises UserError where ids are not whole and one."""
    rows = content.get(field) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{where} is not in COCO's layout: it has no list of objects '{field}'")
    ids = [whole(row, "id", f"{where}: {kind} number {place} of the list") for place, row in enumerate(rows, 1)]
    if (twice := repeated(ids)) is not None:
        raise UserError(f"{where}: {kind} {twice} occurs twice: give each {kind} its own id")
    return [(own, f"{where}: {kind} {own}", row) for own, row in zip(ids, rows, strict=True)]


def read_categories(content: Any, where: str) -> list[dict[str, Any]]:
    """Return id and name of each category."""
    categories = []
    for category_id, name, row in _by_id(content, "categories", "category", where):
        if not is_name(row.get("name")):
            raise UserError(f"{name}: its name must be a text, not {shown(row.get('name', 'missing'))}")
        categories.append({"id": category_id, "name": row["name"]})
    return categories


def read_images(content: Any, part: Part, where: str) -> dict[int, tuple[str, tuple[int, int]]]:
    """Return by id the file of each image, below the source, and its height and width."""
    listed, owner = {}, {}
    for image_id, name, row in _by_id(content, "images", "image", where):
        file = inner_path(row, "file_name", name)
        if (other := owner.setdefault(file, image_id)) != image_id:
            raise UserError(f"{name} and image {other} have the same file {file}: remove one, or merge them")
        size = tuple(whole(row, side, name, 1, "int32") for side in ("height", "width"))
        listed[image_id] = (f"{part.folder}/{file}" if part.folder else file), size
    if not listed:
        raise UserError(f"{where} lists no image")
    return listed


def read_object(annotation: dict[str, Any], label: int, height: int, width: int, name: str) -> Object:
    """Return an annotation's object; a box that is not given is that of its mask, as in COCO's tools."""
    box = annotation.get("bbox")
    if box is None and annotation.get("segmentation"):
        box = box_of(annotation["segmentation"], height, width, name)
    numbers = [finite(value) for value in box] if isinstance(box, list) else []
    if len(numbers) != 4 or None in numbers:
        raise UserError(f"{name} has the box {shown(box)}: four finite numbers (left, top, width, height) are needed")
    left, top, box_width, box_height = numbers
    if min(box_width, box_height) < 0 or max(map(abs, (*numbers, box_width * box_height))) > MOST_PIXELS:
        raise UserError(f"{name} has the box {shown(box)}: its width or height is negative, or it is far too large")
    corners = left, top, left + box_width, top + box_height
    area = finite(annotation.get("area", box_width * box_height))
    if area is None or area < 0:
        raise UserError(f"{name} has the area {shown(annotation.get('area', MISSING))}: a number from 0 on is needed")
    crowd = annotation.get("iscrowd", 0)
    if not isinstance(crowd, bool | int | float) or crowd not in (0, 1):
        raise UserError(f"{name}: its iscrowd must be 0 or 1, not {shown(crowd)}")
    return Object(corners, label, bool(crowd), area)


def _reader(images: Tree, path: str):
    return lambda: images.read(path)
