"""Detection data: layouts on small files, bad inputs, padding and views, and AP against pycocotools."""

import contextlib
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from replications.datasets.detection import coco, voc
from replications.datasets.detection.procedural import Options as SceneOptions
from replications.datasets.detection.procedural import _draw_job, prepare
from replications.errors import UserError
from replications.tasks.detection_2d import TASK
from replications.tasks.detection_2d.data import DetectionSet, training_targets
from replications.tasks.detection_2d.evaluation import SUMMARY, Found, Judge, coco_dataset, coco_results
from replications.tasks.detection_2d.files import FileBatches, random_view, resized, resized_size, shown_batch
from replications.tasks.detection_2d.options import DetectionOptions

SCENES = {
    "image_size": 48, "train": 6, "validation": 2, "test": 12, "classes": 3, "most_objects": 3,
    "radii": [0.09, 0.3], "crowds": 0.5, "area_limits": [100, 250],
}  # fmt: skip
OPTIONS = {
    "train": {"annotations": "train.json", "folder": "train"},
    "validation_images": 1,
    "test": {"annotations": "test.json", "folder": "test"},
    "categories": 2,
}


def as_set(folder, facts):
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    names = ("image_id", "image_size", "split", "boxes", "labels", "crowd", "area")
    return DetectionSet(
        "tiny", {"title": "tiny"}, facts["classes"], facts["category_ids"], tuple(facts["area_limits"]),
        **{name: arrays[name] for name in names},
        **{name: arrays.get(name) for name in ("images", "files", "file_start", "masks")},
    )  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return as_set(folder, prepare(folder, dict(SCENES), {}, 1))


def picture(width=40, height=30, mode="RGB", form="JPEG"):
    stream = io.BytesIO()
    Image.new(mode, (width, height), 100 if mode == "L" else None).save(stream, form)
    return stream.getvalue()


def annotation(number, image, category=7, box=(5, 6, 10, 12), **more):
    own = {"id": number, "image_id": image, "category_id": category, "bbox": list(box)}
    return {**own, "area": 99.0, "iscrowd": 0, **more}


def archive(path, annotations, files=None, categories=((7, "cat"), (3, "dog")), tested=()):
    """Write a zip in COCO's layout: three training images, one test image. Category ids have gaps."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in (11, 12, 13)]
    content = {
        "categories": [{"id": i, "name": name} for i, name in categories],
        "images": images,
        "annotations": annotations,
    }
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("train.json", json.dumps(content))
        bundle.writestr("test.json", json.dumps({**content, "images": images[:1], "annotations": tested}))
        for name in ("train/11.jpg", "train/12.jpg", "train/13.jpg", "test/11.jpg"):
            bundle.writestr(name, (files or {}).get(name, picture()))
    return path


def prepared(tmp_path, annotations, files=None, options=OPTIONS, **more):
    target = tmp_path / "set"
    target.mkdir()
    facts = coco.prepare(target, dict(options), {"images": archive(tmp_path / "a.zip", annotations, files, **more)}, 1)
    return as_set(target, facts), facts


def refused(tmp_path, match, annotations, files=None, **more):
    with pytest.raises(UserError, match=match) as error:
        prepared(tmp_path, annotations, files, **more)
    assert "\n" not in str(error.value)


# Bad inputs


def test_category_ids_with_gaps_and_images_without_objects(tmp_path):
    data, facts = prepared(tmp_path, [annotation(1, 11), annotation(2, 11, category=3), annotation(3, 13)])
    assert facts["category_ids"] == [3, 7] and facts["classes"] == ["dog", "cat"]
    row = int(np.flatnonzero((data.image_id == 11) & (data.split != 2))[0])
    assert data.labels[row, :2].tolist() == [1, 0]
    assert facts["images_without_objects"] == 2
    rows = np.arange(4)
    targets = training_targets(data, rows)
    assert targets.valid.sum() == 3
    assert {a["category_id"] for a in coco_dataset(data, rows, False)["annotations"]} == {3, 7}


def test_boxes_of_no_size_and_outside_are_judged_but_not_trained_on(tmp_path):
    boxes = [(5, 6, 0, 12), (-4, -4, 10, 10), (100, 100, 5, 5), (30, 20, 50, 50)]
    data, _ = prepared(tmp_path, [annotation(i, 12, box=box) for i, box in enumerate(boxes, 1)])
    row = np.flatnonzero(data.image_id == 12)
    targets = training_targets(data, row)
    assert targets.valid.sum() == 2
    np.testing.assert_allclose(targets.boxes[0, 0], [3 / 40, 3 / 30, 6 / 40, 6 / 30], atol=1e-6)
    np.testing.assert_allclose(targets.boxes[0, 1], [35 / 40, 25 / 30, 10 / 40, 10 / 30], atol=1e-6)
    given = [a["bbox"] for a in coco_dataset(data, row, False)["annotations"]]
    np.testing.assert_allclose(given, boxes)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (annotation(5, 99), "annotation 5 is of image 99, which is not listed"),
        (annotation(5, 11, category=4), "category 4, which is not listed"),
        (annotation(5, 11, box=(1, 2, 3)), r"box \[1, 2, 3\]: four finite numbers"),
        (annotation(5, 11, box=(1, 2, float("nan"), 3)), "four finite numbers"),
    ],
)
def test_annotations_that_fit_nothing_are_named(tmp_path, wrong, match):
    refused(tmp_path, match, [wrong])


def test_crowds_with_run_length_masks(tmp_path):
    from faster_coco_eval.core import mask

    drawn = np.zeros((30, 40), np.uint8, order="F")
    drawn[4:10, 6:20] = 1
    rle = mask.encode(drawn)
    counts = rle["counts"]
    compressed = {"size": rle["size"], "counts": counts.decode() if isinstance(counts, bytes) else counts}
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[-1], drawn.T.ravel(), [-1]]))))
    uncompressed = {"size": [30, 40], "counts": runs.tolist()}
    marks = []
    polygon = [[6, 4, 20, 4, 20, 10, 6, 10]]
    for number, form in enumerate((compressed, uncompressed, polygon), 1):
        marks.append(annotation(number, 11, iscrowd=1, segmentation=form))
        del marks[-1]["bbox"]
    data, facts = prepared(tmp_path, [*marks, annotation(4, 11)])
    row = np.flatnonzero((data.image_id == 11) & (data.split != 2))
    assert facts["crowds"] == 3
    np.testing.assert_allclose(data.boxes[row[0], :3], [[6, 4, 20, 10]] * 3)
    assert training_targets(data, row).valid.sum() == 1


def test_png_with_alpha_and_grey_images_become_rgb(tmp_path):
    files = {"train/11.jpg": picture(mode="RGBA", form="PNG"), "train/12.jpg": picture(mode="L", form="PNG")}
    data, _ = prepared(tmp_path, [], files)
    options = TASK.parse_options({"short_side": 32, "long_side": 64})
    batch = shown_batch(data, np.arange(4), options, torch.device("cpu"))
    assert batch["image"].shape == (4, 3, 32, 42) and not batch["padding"].any()


def test_an_image_that_is_missing_or_another(tmp_path):
    (tmp_path / "one").mkdir()
    refused(tmp_path / "one", "is 20x30 pixels, but annotated as 40x30", [], {"train/12.jpg": picture(20, 30)})
    (tmp_path / "two").mkdir()
    refused(tmp_path / "two", "cannot be read as an image", [], {"train/12.jpg": b"no image"})
    (tmp_path / "three").mkdir()
    elsewhere = {**OPTIONS, "test": {"annotations": "test.json", "folder": "val"}}
    refused(tmp_path / "three", "lists the image val/11.jpg, which .* does not have", [], options=elsewhere)
    (tmp_path / "four").mkdir()
    refused(tmp_path / "four", "has 3 categories, expected 2", [], categories=((1, "a"), (2, "b"), (3, "c")))


def test_masks_are_asked_of_a_set_that_has_none(tmp_path):
    from types import SimpleNamespace

    from replications.tasks.detection_2d.stages import Setup

    data, _ = prepared(tmp_path, [annotation(1, 11)])
    spec = SimpleNamespace(recipe=SimpleNamespace(batch_size=1), seed=0)
    setup = Setup(
        SimpleNamespace(spec=spec, device=torch.device("cpu")), TASK.parse_options({"masks": True}), data, data
    )
    with pytest.raises(UserError, match="has no masks"):
        setup.batches(np.arange(2))


def test_task_options_are_checked():
    with pytest.raises(UserError, match="did you mean 'short_side'"):
        TASK.parse_options({"short_sid": 3})
    with pytest.raises(UserError, match="long_side 100 is less"):
        TASK.parse_options({"short_side": 80, "long_side": 100, "train_sides": [120]})


# Layouts


def test_subsets_are_seeded_and_apart(tmp_path):
    options = {**OPTIONS, "train_images": 1}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, facts = prepared(tmp_path / "one", [annotation(1, 11)], options=options)
    second, _ = prepared(tmp_path / "two", [annotation(1, 11)], options=options)
    assert facts["splits"] == [1, 1, 1] and (first.image_id == second.image_id).all()
    assert len(set(first.image_id[first.split < 2])) == 2


def test_voc_layout(tmp_path):
    root = tmp_path / "VOCdevkit"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / "VOC2007" / folder).mkdir(parents=True)
    xml = (
        "<annotation><size><width>40</width><height>30</height></size>"
        "<object><name>cat</name><difficult>0</difficult>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object>"
        "<object><name>dog</name><difficult>1</difficult>"
        "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>8</ymax></bndbox></object></annotation>"
    )
    for index, name in enumerate(("train", "val", "test")):
        (root / "VOC2007/ImageSets/Main" / f"{name}.txt").write_text(f"00000{index}  1\n")
        (root / "VOC2007/Annotations" / f"00000{index}.xml").write_text(xml)
        (root / "VOC2007/JPEGImages" / f"00000{index}.jpg").write_bytes(picture())
    target = tmp_path / "set"
    target.mkdir()
    lists = {"train": ["VOC2007/train"], "validation": ["VOC2007/val"], "test": ["VOC2007/test"]}
    data = as_set(target, voc.prepare(target, lists, {"devkit": root}, 1))
    assert data.boxes[0, 0].tolist() == [0, 0, 10, 20] and data.labels[0].tolist() == [7, 11]
    assert data.crowd[0].tolist() == [False, True] and data.split.tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"no VOC2012/ImageSets/Main/train\.txt"):
        voc.prepare(target, {**lists, "train": ["VOC2012/train"]}, {"devkit": root}, 1)


def test_scenes_do_not_depend_on_the_number_of_images_and_fit_their_masks(scenes):
    options = SceneOptions(**{**SCENES, "train": 600})
    again = _draw_job(options, range(3, 9))
    for name in ("images", "boxes", "labels", "masks"):
        assert (again[name] == np.asarray(getattr(scenes, name)[3:9])).all()
    assert scenes.crowd.any()
    for row in range(len(scenes.images)):
        masks = scenes.unpacked_masks(row)
        for place in np.flatnonzero(scenes.labels[row] >= 0):
            left, top, right, bottom = scenes.boxes[row, place].astype(int)
            assert masks[place, top:bottom, left:right].sum() == masks[place].sum() == scenes.area[row, place] > 0
        assert (masks[~scenes.crowd[row]].sum(0) <= 1).all(), "what is hidden is not part of a mask"


def test_scenes_are_the_same_on_every_machine(scenes):
    import hashlib

    whole = np.ascontiguousarray(scenes.images).tobytes() + np.ascontiguousarray(scenes.boxes).tobytes()
    assert hashlib.sha256(whole).hexdigest()[:16] == "b6faaffdf0b8a935"


# Batches


def test_sides_keep_the_form():
    """Known from the authors' function: the longer side is rounded down, and may pass its limit by a pixel or two."""
    sizes = {(640, 480): (1066, 800), (1000, 200): (1335, 267), (427, 640): (800, 1199), (500, 500): (800, 800)}
    assert {size: resized_size(size, 800, 1333) for size in sizes} == sizes
    assert resized_size((3000, 300), 400, None) == (4000, 400), "no limit before a crop"


def test_images_are_resized_as_torchvision_does_it(tmp_path):
    from torchvision.transforms.v2 import functional

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    theirs = functional.resize(image, [16, 21])  # bilinear by default, as in the authors' code
    assert np.array_equal(resized(image, 16, 100), np.asarray(theirs))


def test_a_mirrored_view_mirrors_its_boxes():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8))
    options = TASK.parse_options({"short_side": 32, "long_side": 64})
    boxes, labels = np.array([[0.1, 0.2, 0.4, 0.6]]), np.array([1])
    straight = random_view(image, boxes, labels, [0.9] * 8, options)
    mirrored = random_view(image, boxes, labels, [0.1] + [0.9] * 7, options)
    np.testing.assert_allclose(mirrored[1], [[0.75, 0.4, 0.3, 0.4]])
    np.testing.assert_allclose(straight[1], [[0.25, 0.4, 0.3, 0.4]])
    assert np.abs(mirrored[0][:, ::-1].astype(int) - straight[0]).max() <= 1


def test_a_cropped_view_cuts_boxes_and_drops_those_outside():
    image = Image.new("RGB", (600, 600))
    image.paste((255, 0, 0), (0, 0, 60, 60))
    options = DetectionOptions(short_side=600, long_side=800, crop=(300, 300), crop_sides=(600,))
    boxes, labels = np.array([[0.0, 0.0, 0.1, 0.1], [0.4, 0.4, 0.9, 0.9]]), np.array([1, 2])
    numbers = [0.9, 0.1, 0.0, 0.0, 0.5, 0.5, 0.999, 0.999]  # no mirror, a crop, at the right and at the bottom
    view, boxes, labels = random_view(image, boxes, labels, numbers, options)
    assert labels.tolist() == [2] and view.shape == (600, 600, 3) and view.max() == 0
    np.testing.assert_allclose(boxes, [[0.4, 0.4, 0.8, 0.8]], atol=0.01)


def test_file_batches_read_ahead_are_those_asked_for_one_by_one(tmp_path):
    data, _ = prepared(tmp_path, [annotation(i, image) for i, image in enumerate((11, 12, 13), 1)])
    options = TASK.parse_options({"short_side": 32, "long_side": 64, "train_sides": [32, 40], "workers": 2})
    rows = np.flatnonzero(data.split < 2)
    alone, ahead = (FileBatches(data, rows, options, 2, 5, torch.device("cpu")) for _ in range(2))
    ahead.begin(4, range(1))
    for step in (0, 1, 3, 2):
        one, other = alone.batch(step), ahead.batch(step)
        assert all(torch.equal(one[name], other[name]) for name in one)
    ahead.end()
    halves = [alone.batch(1, part, 2) for part in range(2)]
    whole = alone.batch(1)
    for row, half in enumerate(halves):
        inside = ~half["padding"][0]
        height, width = int(inside.any(1).sum()), int(inside.any(0).sum())
        assert torch.equal(half["image"][0, :, :height, :width], whole["image"][row, :, :height, :width])


# Judging


def found_in(data, rows, seed):
    """Detections that are partly right."""
    rng, found = np.random.default_rng(seed), []
    for row in rows:
        real = np.flatnonzero(data.labels[row] >= 0)
        near = data.boxes[row, real] + rng.normal(0, 1.5, (len(real), 4))
        boxes = np.concatenate([near, 48 * np.sort(rng.random((3, 4)))])
        labels = np.concatenate([data.labels[row, real], rng.integers(0, 3, 3)]).astype(np.int64)
        masks = np.concatenate([data.unpacked_masks(row)[real], rng.random((3, 48, 48)) > 0.5])
        masks[:, ::7] = False
        found.append(Found(boxes, rng.random(len(labels)), labels, masks))
    return found


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_ap_is_pycocotools(scenes, kind, seed):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = np.flatnonzero(scenes.split == 2)
    found = found_in(scenes, rows, seed)
    metrics, by_class = Judge(scenes, rows).judge(found, kind)
    truth = COCO()
    truth.dataset = coco_dataset(scenes, rows, kind == "segm")
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(coco_results(scenes, rows, found, kind)), kind)
        small, large = scenes.area_limits
        evaluator.params.areaRng = [[0, 1e10], [0, small], [small, large], [large, 1e10]]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    expected = {name: 100 * value for name, value in zip(SUMMARY, evaluator.stats, strict=True) if value >= 0}
    assert metrics == pytest.approx(expected, abs=1e-9)
    assert 5 < metrics["ap"] < 95
    assert np.mean(by_class["ap"]) == pytest.approx(metrics["ap"])


def test_nothing_found_and_no_objects_of_a_size(scenes):
    rows = np.flatnonzero(scenes.split == 2)
    nothing = [Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))] * len(rows)
    metrics, _ = Judge(scenes, rows).judge(nothing)
    assert metrics["ap"] == 0 and metrics["ar100"] == 0


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong(scenes):
    rows = np.flatnonzero((scenes.split == 2) & scenes.crowd.any(1))
    assert len(rows)
    exact, with_crowd = [], []
    for row in rows:
        real, crowd = (
            np.flatnonzero((scenes.labels[row] >= 0) & (scenes.crowd[row] == is_crowd)) for is_crowd in (0, 1)
        )
        for found, places in ((exact, real), (with_crowd, [*real, *crowd, *crowd])):
            found.append(
                Found(scenes.boxes[row, places], np.linspace(0.5, 0.9, len(places)), scenes.labels[row, places])
            )
    judge = Judge(scenes, rows)
    assert judge.judge(exact)[0]["ap"] == pytest.approx(100)
    assert judge.judge(with_crowd)[0]["ap"] == pytest.approx(100)


# A run on image files


@pytest.mark.parametrize("address", ["detr/detr", "conditional_detr/conditional_detr", "faster_rcnn/faster_rcnn"])
def test_a_run_on_image_files_of_two_sizes(tmp_path, monkeypatch, address):
    from replications import catalogue, running
    from replications.tasks.detection_2d import execute, stages

    files = {"train/12.jpg": picture(), "test/11.jpg": picture()}
    marks = [annotation(i, image) for i, image in enumerate((11, 12, 13), 1)]
    data, _ = prepared(tmp_path, marks, files, tested=[annotation(1, 11)])
    monkeypatch.setattr(stages, "open_detection_set", lambda key, root: data)
    changes = ["recipe.steps=2", "recipe.batch_size=2", "task.short_side=48", "task.train_sides=[48, 64]"]
    spec = catalogue.resolve(address, "smoke", 0, changes)
    context = running.RunContext(spec, torch.device("cpu"), tmp_path, tmp_path / "work")
    evaluation = execute.execute(context)
    assert evaluation.category == "tiny, shorter side 48"
    assert all(np.isfinite(value) for value in evaluation.metrics.values()) and "ap" in evaluation.metrics
    assert evaluation.arrays["boxes"].shape[0] == 1 and evaluation.data["train"]["images"] == 2


def test_train_and_test_sets_of_other_classes(tmp_path, monkeypatch, scenes):
    from replications import catalogue, running
    from replications.tasks.detection_2d import stages

    data, _ = prepared(tmp_path, [])
    monkeypatch.setattr(stages, "open_detection_set", lambda key, root: {"a": data, "b": scenes}[key])
    spec = catalogue.resolve("detr/detr", "smoke", 0, ["data.train=a", "data.test=b"])
    with pytest.raises(UserError, match="have different classes"):
        stages.Setup.of(running.RunContext(spec, torch.device("cpu"), tmp_path, tmp_path))


def test_a_split_without_objects_judges_nothing(tmp_path):
    data, _ = prepared(tmp_path, [annotation(1, 12, iscrowd=1)])
    with pytest.raises(UserError, match="none of 4 images to judge by has an object"):
        Judge(data, np.arange(4))
