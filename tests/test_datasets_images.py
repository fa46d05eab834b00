"""Sets of classified images from small files in their official layouts; odd and damaged files."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from replications.datasets import registry
from replications.datasets.images import cifar, digits, imagenet_tars, procedural, tiny_imagenet, tree
from replications.errors import UserError
from replications.tasks.image_classification.data import ImageSet

WNIDS = ("n01443537", "n01629819", "n01641577", "n01644900")


def picture(colour, size=(12, 8), mode="RGB", kind="JPEG"):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return stream.getvalue()


def colour_of(index):
    return tuple(int(v) for v in np.random.default_rng(index).integers(30, 220, 3))


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def load(folder):
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def make(preparer, target, files, workers=1, **options):
    target.mkdir(exist_ok=True)
    return preparer.prepare(target, options, files, workers), load(target)


def tiny_root(root, wnids=WNIDS):
    """Tiny-ImageNet in the layout of the official zip: three training images and one validation image a class."""
    write(root / "wnids.txt", "\n".join(reversed(wnids)) + "\n")
    lines = []
    for index, wnid in enumerate(wnids):
        write(root / "train" / wnid / f"{wnid}_boxes.txt", "x")
        for number in range(3):
            write(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", picture(colour_of(index)))
        write(root / "val" / "images" / f"val_{index}.JPEG", picture(colour_of(index)))
        lines.append(f"val_{index}.JPEG\t{wnid}\t0\t0\t8\t8")
    write(root / "val" / "val_annotations.txt", "\n".join(lines) + "\n")
    return root


def colours(arrays):
    return arrays["images"].mean((1, 2))


def test_tiny_imagenet_in_its_official_layout(tmp_path):
    root = tiny_root(tmp_path / "tiny-imagenet-200")
    options = {"size": 8, "num_classes": 4, "all_classes": 4, "validation": 0.34}
    facts, arrays = make(tiny_imagenet, tmp_path / "set", {"images": root}, **options)
    assert facts["classes"] == list(WNIDS)
    assert arrays["label"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [0, 1, 2, 3]
    assert (arrays["split"][12:] == 2).all() and (arrays["split"][:12].reshape(4, 3) == 1).sum(1).tolist() == [1] * 4
    for row, label in enumerate(arrays["label"]):
        assert np.abs(colours(arrays)[row] - colour_of(label)).max() < 4


def test_every_second_class_is_the_same_from_either_archive(tmp_path):
    options = {"size": 8, "num_classes": 2, "all_classes": 4}
    whole = tiny_root(tmp_path / "whole")
    half = tiny_root(tmp_path / "half", WNIDS[::2])
    for index, wnid in enumerate(WNIDS[::2]):  # colours follow the place in the list: give them those of the whole
        for path in [*(half / "train" / wnid / "images").iterdir(), half / "val" / "images" / f"val_{index}.JPEG"]:
            path.write_bytes(picture(colour_of(2 * index)))
    (one, first), (other, second) = (
        make(tiny_imagenet, tmp_path / f"set_{root.name}", {"images": root}, **options) for root in (whole, half)
    )
    assert one["classes"] == other["classes"] == ["n01443537", "n01641577"]
    assert all(np.array_equal(first[name], second[name]) for name in first)
    with pytest.raises(UserError, match="lists 2 classes, the set has 4"):
        make(tiny_imagenet, tmp_path / "wrong", {"images": half}, **options | {"num_classes": 4})


def tree_root(root, odd=True):
    for folder, count in (("train", 4), ("val", 2)):
        for index, wnid in enumerate(WNIDS):
            for number in range(count):
                write(root / folder / wnid / f"{wnid}_{number}.JPEG", picture(colour_of(index)))
    if odd:
        write(root / "train" / WNIDS[0] / f"{WNIDS[0]}_1.JPEG", picture(colour_of(0), mode="L"))
        write(root / "train" / WNIDS[1] / f"{WNIDS[1]}_0.JPEG", picture(colour_of(1), mode="CMYK"))
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
        stream = io.BytesIO()
        noise.save(stream, "JPEG")
        write(root / "val" / WNIDS[2] / f"{WNIDS[2]}_1.JPEG", stream.getvalue()[:900])
    return root


def test_a_truncated_picture_is_named_and_stops_the_preparation(tmp_path):
    root = tree_root(tmp_path / "imagenet")
    with pytest.raises(UserError, match=r"val/n01641577/n01641577_1.JPEG cannot .*1 of 24 files.*damaged: skip"):
        make(tree, tmp_path / "set", {"images": root}, size=8, num_classes=4)


def test_odd_pictures_are_named_counted_and_skipped_where_the_set_says_so(tmp_path):
    root = tree_root(tmp_path / "imagenet")
    facts, arrays = make(tree, tmp_path / "set", {"images": root}, size=8, num_classes=4, damaged="skip")
    odd = facts["odd_files"]
    assert odd["greyscale"] == {"count": 1, "first": ["train/n01443537/n01443537_1.JPEG"]}
    assert odd["CMYK"] == {"count": 1, "first": ["train/n01629819/n01629819_0.JPEG"]}
    assert odd["damaged"] == {"count": 1, "first": ["val/n01641577/n01641577_1.JPEG"]}
    assert (arrays["split"] == -1).sum() == 1 and (arrays["split"] == 2).sum() == 7
    grey, cmyk = arrays["images"][1], arrays["images"][4]
    assert (grey == grey[..., :1]).all()
    assert np.abs(cmyk.mean((0, 1)) - colour_of(1)).max() < 6


def test_a_left_out_picture_is_in_no_split():
    split = np.array([0, -1, 2, 1], np.int8)
    images = ImageSet("toy", {}, np.zeros((4, 2, 2, 3), np.uint8), np.zeros(4, np.int32), split, ("a", "b"))
    assert sorted(np.concatenate([images.rows(name) for name in ("train", "validation", "test")])) == [0, 2, 3]


def test_pictures_are_the_middle_square(tmp_path):
    image = np.zeros((8, 24, 3), np.uint8)
    image[:, 8:16] = 200
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    for folder in ("train", "val"):
        for wnid in WNIDS[:2]:
            write(tmp_path / "tree" / folder / wnid / "a.png", stream.getvalue())
    _, arrays = make(tree, tmp_path / "set", {"images": tmp_path / "tree"}, size=4, num_classes=2)
    assert (arrays["images"] == 200).all()


def test_a_tree_takes_the_listed_classes_and_two_workers_give_the_same(tmp_path):
    root = tree_root(tmp_path / "imagenet", odd=False)
    options = {"size": 8, "num_classes": 2, "classes": [WNIDS[3], WNIDS[1]]}
    facts, one = make(tree, tmp_path / "one", {"images": root}, **options)
    _, two = make(tree, tmp_path / "two", {"images": root}, workers=2, **options)
    assert facts["classes"] == [WNIDS[1], WNIDS[3]]
    assert all(np.array_equal(one[name], two[name]) for name in one)
    with pytest.raises(UserError, match="has 4 classes instead of 3"):
        make(tree, tmp_path / "wrong", {"images": root}, size=8, num_classes=3)


def test_a_class_without_images_and_a_wrong_layout_are_named(tmp_path):
    root = tree_root(tmp_path / "imagenet", odd=False)
    for path in (root / "val" / WNIDS[0]).iterdir():
        path.unlink()
    with pytest.raises(UserError, match="n01443537 holds no image: a class without images"):
        make(tree, tmp_path / "set", {"images": root}, size=8, num_classes=4)
    with pytest.raises(UserError, match="has no folders train and val"):
        make(tree, tmp_path / "set", {"images": tmp_path}, size=8, num_classes=4)


def tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_imagenet_from_its_archives(tmp_path):
    classes = []
    for index, wnid in enumerate(WNIDS):
        inner = tar(tmp_path / f"{wnid}.tar", [(f"{wnid}_{n}.JPEG", picture(colour_of(index))) for n in range(3)])
        classes.append((f"{wnid}.tar", inner.read_bytes()))
    ids = [2, 1, 4, 3]  # ILSVRC's own numbers are not in the order of the WordNet ids
    synsets = np.array(
        [(number, wnid) for number, wnid in zip(ids, WNIDS, strict=True)],
        dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "O")],
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = "\n".join(str(ids[index]) for index in (3, 0, 2))
    devkit = tar(
        tmp_path / "devkit.tar",
        [
            ("ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue()),
            ("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.encode()),
        ],
    )
    val = [(f"ILSVRC2012_val_{n:08d}.JPEG", picture(colour_of(i))) for n, i in ((1, 3), (2, 0), (3, 2))]
    files = {"train": tar(tmp_path / "train.tar", classes), "val": tar(tmp_path / "val.tar", val), "devkit": devkit}
    options = {"size": 8, "num_classes": 4, "num_train": 12, "num_test": 3}
    facts, arrays = make(imagenet_tars, tmp_path / "set", files, **options)
    assert facts["classes"] == list(WNIDS)
    assert arrays["label"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [3, 0, 2]
    assert arrays["split"].tolist() == [0] * 12 + [2] * 3
    for row, label in enumerate(arrays["label"]):
        assert np.abs(colours(arrays)[row] - colour_of(label)).max() < 4
    with pytest.raises(UserError, match="hold 12 and 3 images instead of 13 and 3"):
        make(imagenet_tars, tmp_path / "wrong", files, **options | {"num_train": 13})
    litter = [(name, b"\0\5\x16\7") for name in (".DS_Store", "._n01443537.tar", "@eaDir/n01443537.tar")]
    own = [(f"{WNIDS[0]}_{n}.JPEG", picture(colour_of(0))) for n in range(3)]
    inner = tar(tmp_path / "inner.tar", [("._n01443537_0.JPEG", b"\0\5\x16\7"), *own])
    first = (classes[0][0], inner.read_bytes())
    tar(tmp_path / "train.tar", [*litter, first, *classes[1:]])
    tar(tmp_path / "val.tar", [*litter, *val])
    _, again = make(imagenet_tars, tmp_path / "again", files, **options)
    np.testing.assert_array_equal(again["images"], arrays["images"])
    cut = (classes[0][0], classes[0][1][:-10_000])
    tar(tmp_path / "train.tar", [cut, *classes[1:]])
    with pytest.raises(UserError, match=r"train\.tar: n01443537\.tar.* is truncated or damaged"):
        make(imagenet_tars, tmp_path / "cut", files, **options)


def cifar_archive(path, payload):
    return tar(path, [(f"cifar-10-batches-py/{name}", pickle.dumps(value, protocol=2)) for name, value in payload])


def test_cifar_from_its_pickles(tmp_path):
    numbers = np.random.default_rng(0)
    data = numbers.integers(0, 255, (5, 3072), dtype=np.uint8)
    payload = [
        ("data_batch_1", {b"data": data[:2], b"labels": [3, 1]}),
        ("data_batch_2", {b"data": data[2:4], b"labels": [0, 2]}),
        ("test_batch", {b"data": data[4:], b"labels": [9]}),
        ("batches.meta", {b"label_names": [f"c{i}".encode() for i in range(10)]}),
    ]
    archive = cifar_archive(tmp_path / "cifar.tar", payload)
    options = {"num_classes": 10, "num_train": 4, "num_test": 1}
    facts, arrays = make(cifar, tmp_path / "set", {"archive": archive}, **options)
    assert facts["classes"] == [f"c{i}" for i in range(10)]
    assert arrays["label"].tolist() == [3, 1, 0, 2, 9] and arrays["split"].tolist() == [0, 0, 0, 0, 2]
    assert np.array_equal(arrays["images"][3, 5, 7], data[3].reshape(3, 32, 32)[:, 5, 7])
    with pytest.raises(UserError, match="has 4 and 1 images, not the official counts"):
        make(cifar, tmp_path / "wrong", {"archive": archive}, num_classes=10)


def test_a_cifar_pickle_runs_nothing(tmp_path):
    archive = cifar_archive(tmp_path / "evil.tar", [("data_batch_1", Path)])
    with pytest.raises(UserError, match=r"a CIFAR pickle names .*Path: refused"):
        make(cifar, tmp_path / "set", {"archive": archive}, num_classes=10)


def test_procedural_pictures_are_the_same_again_and_hold_every_class_equally(tmp_path):
    options = {"image_size": 12, "train": 40, "validation": 10, "test": 20}
    facts, one = make(procedural, tmp_path / "one", {}, **options)
    _, two = make(procedural, tmp_path / "two", {}, **options)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert np.bincount(one["label"][one["split"] == 0]).tolist() == [4] * 10 and len(facts["classes"]) == 10
    assert len({image.tobytes() for image in one["images"]}) == 70


def test_a_figure_is_lighter_than_its_ground():
    numbers = np.random.default_rng(0)
    options = procedural.Options(image_size=24, train=10, validation=0, test=10, specks=0, noise=0.0)
    images = procedural.draw_images(np.zeros(50, int), options, numbers).mean(-1)
    assert (images[:, 10:14, 10:14].mean((1, 2)) > images[:, :2, :2].mean((1, 2))).all()


def test_contrast_keeps_figure_and_ground_apart_and_stripes_are_as_strong_as_asked():
    def grey(**options) -> np.ndarray:
        plain = {"specks": 0, "noise": 0.0, "stripes": 0.0, "smallest": 0.85, "shift": 0.0} | options
        wanted = procedural.Options(image_size=24, train=10, validation=0, test=10, **plain)
        return procedural.draw_images(np.zeros(50, int), wanted, np.random.default_rng(0)).astype(int)

    centre, corner = (slice(None), slice(11, 13), slice(11, 13)), (slice(None), slice(0, 2), slice(0, 2))
    parted = grey(contrast=0.3)
    assert parted[corner].max() <= 255 * 0.2 + 1 and parted[centre].min() >= 255 * (0.8 - 0.02)  # shade at the centre
    assert grey()[centre].min() < 255 * 0.6  # without contrast some channel is near one half
    striped = np.abs(grey(contrast=0.3, stripes=0.1) - parted)
    assert 255 * 0.06 < striped[corner].max() <= 255 * 0.1 + 1 and striped[centre].max() == 0


def test_figures_stay_within_their_shift_and_size():
    def discs(**options) -> np.ndarray:
        plain = procedural.Options(image_size=24, train=10, validation=0, test=10, specks=0, noise=0.0, **options)
        images = procedural.draw_images(np.zeros(40, int), plain, np.random.default_rng(0)).mean(-1)
        return images > (images.max((1, 2), keepdims=True) + images[:, :1, :1]) / 2

    def middles(masks: np.ndarray) -> np.ndarray:
        return np.array([np.argwhere(mask).mean(0) for mask in masks])

    still, largest = discs(shift=0.0), discs(shift=0.0, smallest=0.85)
    assert np.abs(middles(still) - 11.5).max() < 2 < np.abs(middles(discs(shift=0.4)) - 11.5).max()
    area = np.pi * (0.8 * 0.85 * 12) ** 2  # of a disc of the largest radius, in pixels
    assert np.median(largest.sum((1, 2))) == pytest.approx(area, rel=0.15)
    assert np.median(still.sum((1, 2))) < 0.85 * area


def test_digits_are_split_without_loss(tmp_path):
    facts, arrays = make(digits, tmp_path / "set", {}, size=16, validation=180, test=357)
    assert facts["images"] == 1797 and np.bincount(arrays["split"]).tolist() == [1260, 180, 357]
    assert arrays["images"].shape == (1797, 16, 16, 3)


def test_the_registered_sets_have_their_classes():
    listed = registry.find_set("imagenet100_160").options["classes"]
    assert len(set(listed)) == 100 and all(name.startswith("n") for name in listed)


def test_what_file_managers_leave_is_no_class_and_no_picture(tmp_path):
    root = tree_root(tmp_path / "imagenet")
    (root / "val/n01641577/n01641577_1.JPEG").write_bytes(picture(colour_of(2)))  # the damaged one
    make(tree, tmp_path / "before", {"images": root}, size=8, num_classes=4)
    for folder in (root / "train", root / "val", root / "train" / WNIDS[0]):
        for place in (".cache", "@eaDir"):
            write(folder / place / "a.JPEG", b"\0\5\x16\7")
        write(folder / ".DS_Store", b"Bud1")
        write(folder / "._n01443537_0.JPEG", b"\0\5\x16\7")
        write(folder / "Thumbs.db", b"\xd0\xcf")
    make(tree, tmp_path / "after", {"images": root}, size=8, num_classes=4)
    for name, array in load(tmp_path / "before").items():
        np.testing.assert_array_equal(load(tmp_path / "after")[name], array)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", "utf-16"])
def test_lists_of_tiny_imagenet_from_windows(tmp_path, mark):
    root = tiny_root(tmp_path / "tiny")
    for path in (root / "wnids.txt", root / "val/val_annotations.txt"):
        text = path.read_text().replace("\n", "\r\n")
        path.write_bytes(text.encode(mark) if isinstance(mark, str) else mark + text.encode())
    facts, arrays = make(tiny_imagenet, tmp_path / "set", {"images": root}, size=8, num_classes=4, all_classes=4)
    assert facts["classes"] == sorted(WNIDS) and (arrays["split"] == 2).sum() == 4


def test_a_picture_of_tiny_imagenet_that_is_listed_twice_is_named(tmp_path):
    root = tiny_root(tmp_path / "tiny")
    with (root / "val/val_annotations.txt").open("a") as stream:
        stream.write(f"val_0.JPEG\t{WNIDS[1]}\t0\n")
    with pytest.raises(UserError, match=r"val_annotations\.txt:5: val_0\.JPEG occurs twice"):
        make(tiny_imagenet, tmp_path / "set", {"images": root}, size=8, num_classes=4, all_classes=4)
