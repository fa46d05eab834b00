"""Sets in COCO's layout: ``instances_*.json`` and folders of images; COCO 2017 itself, parts of it, and others.

Annotations are taken as COCO's own tools take them: category ids may have gaps, images may have no object, boxes may be
empty or reach out of the image, crowds may have run-length masks. What those tools would pass over in silence and no
honest file has is refused: an annotation of an image or category that is not listed, a box that is no four numbers, an
image whose file is missing.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from replications.datasets.detection.form import Entry, Object, Tree, write_set
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

TRAIN, VALIDATION, TEST = range(3)


class Part(Strict):
    """Annotations and images of a split: a source (role) each, and where in it they lie."""

    annotations: str = Field(description="path of the JSON file in its source")
    annotations_in: str = "images"
    folder: str = Field("", description="folder of the images in their source")
    images_in: str = "images"


class Options(Strict):
    """Options of a set. Without a part of its own, validation images are drawn from the training images."""

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
            raise UserError(f"{where} has other categories than the training annotations")
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
    facts = write_set(target, entries, names, ids, "copying images")
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
        categories = sorted(content["categories"], key=lambda category: category["id"])
        listed = {image["id"]: image for image in content["images"]}
        marked = content["annotations"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where} is not in COCO's layout ({type(error).__name__}: {error})") from error
    label = {category["id"]: index for index, category in enumerate(categories)}
    objects: dict[int, list[Object]] = {image_id: [] for image_id in listed}
    for annotation in marked:
        name = f"{where}: annotation {annotation.get('id', '?')}"
        if annotation.get("image_id") not in listed:
            raise UserError(f"{name} is of image {annotation.get('image_id')}, which is not listed: remove it")
        if annotation.get("category_id") not in label:
            raise UserError(f"{name} has the category {annotation.get('category_id')}, which is not listed")
        image = listed[annotation["image_id"]]
        objects[annotation["image_id"]].append(read_object(annotation, label, image["height"], image["width"], name))
    entries = []
    for image_id, image in sorted(listed.items()):
        path = f"{part.folder}/{image['file_name']}" if part.folder else image["file_name"]
        if path not in images:
            raise UserError(f"{where} lists the image {path}, which {images.path} does not have")
        size = image["height"], image["width"]
        entries.append(Entry(path, image_id, split, size, objects[image_id], _reader(images, path)))
    return [{"id": category["id"], "name": category["name"]} for category in categories], entries


def read_object(annotation: dict[str, Any], label: dict[int, int], height: int, width: int, name: str) -> Object:
    """Return an annotation's object; a box that is not given is that of its mask, as in COCO's tools."""
    box = annotation.get("bbox")
    if box is None and annotation.get("segmentation"):
        from faster_coco_eval.core import mask

        form = annotation["segmentation"]  # polygons, runs, or runs in COCO's compressed form
        if isinstance(form, list):
            form = mask.merge(mask.frPyObjects(form, height, width))
        elif isinstance(form.get("counts"), list):
            form = mask.frPyObjects(form, height, width)
        box = mask.toBbox(form).tolist()
    numbers = box if isinstance(box, list) else []
    if len(numbers) != 4 or not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
        raise UserError(f"{name} has the box {box}: four finite numbers (left, top, width, height) are needed")
    left, top, box_width, box_height = numbers
    return Object(
        (left, top, left + box_width, top + box_height),
        label[annotation["category_id"]],
        bool(annotation.get("iscrowd", 0)),
        float(annotation.get("area", box_width * box_height)),
    )


def _reader(images: Tree, path: str):
    return lambda: images.read(path)
