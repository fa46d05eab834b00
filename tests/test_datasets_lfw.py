"""LFW: official layout in, arrays of the protocol out; anything else is one clear line."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import tiny_lfw
from PIL import Image

from replications.datasets.faces import lfw
from replications.datasets.registry import find_set
from replications.errors import UserError


def prepare(tmp_path: Path, files: dict[str, Path], workers: int = 1, **options) -> dict[str, np.ndarray]:
    target = tmp_path / "target"
    target.mkdir(exist_ok=True)
    lfw.prepare(target, tiny_lfw.OPTIONS | options, files, workers)
    return {path.stem: np.load(path) for path in target.glob("*.npy")}


def test_arrays_say_what_the_files_say(tmp_path):
    arrays = prepare(tmp_path, tiny_lfw.write(tmp_path))
    names = tiny_lfw.image_names()
    people = sorted({name for name, _ in names})
    fold_of = {name: fold for fold, members in tiny_lfw.PEOPLE.items() for name in members}
    assert arrays["identity"].tolist() == [people.index(name) for name, _ in names]
    assert arrays["fold"].tolist() == [fold_of[name] for name, _ in names]
    told = []
    for fold, sides in tiny_lfw.PAIRS.items():
        for same, lines in zip((True, False), sides, strict=True):
            for words in map(str.split, lines):
                a, i, b, j = [words[0], words[1], words[0], words[2]] if same else words
                told.append((names.index((a, int(i))), names.index((b, int(j))), same, fold))
    found = zip(*arrays["pairs"].T.tolist(), arrays["pair_same"].tolist(), arrays["pair_fold"].tolist(), strict=True)
    assert list(found) == told
    assert np.flatnonzero(arrays["pair_error"]).tolist() == [5]
    assert {name: str(array.dtype) for name, array in arrays.items()} == {
        "images": "uint8",
        "identity": "int32",
        "fold": "int8",
        "pairs": "int32",
        "pair_same": "bool",
        "pair_fold": "int8",
        "pair_error": "bool",
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_pixels_are_the_crop_of_the_fully_decoded_image(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(lfw, "ROWS_A_JOB", 4)
    arrays = prepare(tmp_path, tiny_lfw.write(tmp_path), workers)
    for row, data in zip(arrays["images"], tiny_lfw.pictures().values(), strict=True):
        crop = Image.open(io.BytesIO(data)).crop((55, 48, 195, 188))
        assert np.array_equal(row, np.asarray(crop.resize((28, 28), Image.Resampling.BILINEAR)))


def test_the_order_of_the_archive_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(lfw, "ROWS_A_JOB", 4)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    members = tiny_lfw.pictures()
    shuffled = {name: members[name] for name in sorted(members, key=lambda name: name[::-1])}
    assert list(shuffled) != list(members)
    one = prepare(tmp_path / "one", tiny_lfw.write(tmp_path / "one"))
    two = prepare(tmp_path / "two", tiny_lfw.write(tmp_path / "two", shuffled, "w:xz"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


BEA = "lfw-deepfunneled/Bea_Two/Bea_Two_0002.jpg"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({BEA: None}, "lacks 1 images, the first is image 2 of Bea_Two"),
        ({"x/Eve_Extra/Eve_Extra_0001.jpg": b""}, r"Eve_Extra_0001\.jpg is not listed in people\.txt"),
        ({"other/Bea_Two_0002.jpg": b""}, r"other/Bea_Two_0002\.jpg is listed twice"),
        ({BEA: tiny_lfw.jpeg(1)[:2000]}, r"lfw\.tgz: .*Bea_Two_0002\.jpg cannot be read as an image"),
        ({BEA: b"no image"}, r"lfw\.tgz: .*Bea_Two_0002\.jpg cannot be read as an image"),
        ({BEA: tiny_lfw.jpeg(1, (150, 150))}, r"Bea_Two_0002\.jpg is 150x150 pixels instead of 250x250"),
    ],
)
def test_an_image_that_is_missing_unlisted_twice_or_damaged_is_named(tmp_path, changes, message):
    members = {name: data for name, data in (tiny_lfw.pictures() | changes).items() if data is not None}
    with pytest.raises(UserError, match=message) as error:
        prepare(tmp_path, tiny_lfw.write(tmp_path, members))
    assert "\n" not in str(error.value)


def test_a_truncated_archive_is_told_and_what_was_done_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(lfw, "ROWS_A_JOB", 2)
    files = tiny_lfw.write(tmp_path)
    whole = files["images"].read_bytes()
    files["images"].write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UserError, match="truncated or damaged"):
        prepare(tmp_path, files)
    files["images"].write_bytes(whole)
    done = []
    monkeypatch.setattr(lfw, "face_rows", lambda items, **form: done.append(len(items)) or ROWS(items, **form))
    arrays = prepare(tmp_path, files)
    assert 0 < sum(done) < len(arrays["images"])
    for row, data in zip(arrays["images"], tiny_lfw.pictures().values(), strict=True):
        assert np.array_equal(row, ROWS([("", data)], 250, (55, 48, 195, 188), 28)["images"][0])


ROWS = lfw.face_rows


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("people", "Abe_First\t3", "Abe_First\t2", "lists 12 images instead of 13"),
        ("people", "Abe_First\t3", "Abe_First", r"people\.txt:4: expected a name and the number of its images"),
        ("people", "Abe_First\t3", "Abe_First\t0", r"people\.txt:4: expected a name"),
        ("people", "Abe_First", "Di_Four", "lists Di_Four twice: the folds must not share people"),
        ("people", "2\n3\n", "2\n2\n", r"people\.txt:5: expected a count"),
        ("people", "Di_Four\t4\n", "Di_Four\t4\nEve\t1\n", r"people\.txt:10: more lines"),
        ("people", "Di_Four\t4\n", "", r"people\.txt:0: expected a name"),
        ("pairs", "2\t2\n", "2\t300\n", r"pairs\.txt:4: expected a name and two image numbers"),
        ("pairs", "2\t2\n", "2\n", r"pairs\.txt:1: expected the number of folds"),
        ("pairs", "Cy_Three\t1\tDi_Four\t3\n", "", r"pairs\.txt:0: expected two names"),
        (
            "pairs",
            "Cy_Three\t1\tDi_Four\t3",
            "Di_Four\t1\tDi_Four\t3",
            r"pairs\.txt:9: a mismatched pair of one person",
        ),
        ("pairs", "Di_Four\t2\t4", "Di_Four\t2\t5", r"pairs\.txt:7: there is no image 5 of Di_Four"),
        ("pairs", "Cy_Three\t1", "Eve_None\t1", r"pairs\.txt:9: there is no image 1 of Eve_None"),
        ("pairs", "Bea_Two\t1\t2", "Zoe_Last\t1\t2", r"pairs\.txt:6: Zoe_Last is of fold 1, the pair of fold 2"),
        ("pairs", "Di_Four\t2\t4", "Di_Four\t2\t3", "no pair Di_Four 2 4 in fold 2: a known label error is missing"),
    ],
)
def test_lists_that_are_not_official_are_told(tmp_path, file, old, new, message):
    files = tiny_lfw.write(tmp_path)
    text = files[file].read_text()
    assert old in text
    files[file].write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as error:
        prepare(tmp_path, files)
    assert "\n" not in str(error.value)


@pytest.mark.skipif("REPLICATIONS_MIRROR" not in os.environ, reason="needs the official LFW list files")
def test_the_official_lists_are_the_protocol():
    """Counts, folds and label errors of LFW View 2, as the official page gives them."""
    folder = Path(os.environ["REPLICATIONS_MIRROR"]) / "lfw"
    people, pairs = lfw.read_people(folder / "people.txt"), lfw.read_pairs(folder / "pairs.txt")
    options = lfw.Options(**find_set("lfw_112").options)
    assert (len(people), sum(p.num_images for p in people), len(pairs)) == (5749, 13233, 6000)
    assert [sum(p.fold == fold for p in people) for fold in range(1, 11)] == [
        *(601, 555, 552, 560, 567),
        *(527, 597, 601, 580, 609),
    ]
    assert [sum(p.num_images for p in people if p.fold == fold) for fold in range(1, 11)] == [
        *(1369, 1367, 1089, 1324, 1016),
        *(1166, 1690, 1222, 1207, 1783),
    ]
    assert len({image for pair in pairs for image in (pair.first, pair.second)}) == 7701
    lines = {(p.fold, p.first, p.second): p.line for p in pairs}
    errors = [lines[fold, (name, i), (name, j)] for fold, name, i, j in options.label_errors]
    assert sorted(errors) == [114, 187, 203, 2500, 2552, 2553, 3653]


def test_what_file_managers_leave_is_nobody_and_lists_may_be_from_windows(tmp_path):
    extra = {"lfw-deepfunneled/Bea_Two/._Bea_Two_0002.jpg": b"\0\5\x16\7", "__MACOSX/x/Eve_Extra_0001.jpg": b""}
    files = tiny_lfw.write(tmp_path, extra | tiny_lfw.pictures())
    for name in ("people", "pairs"):
        files[name].write_bytes(b"\xef\xbb\xbf" + files[name].read_bytes().replace(b"\n", b"\r\n"))
    assert len(prepare(tmp_path, files)["images"]) == len(tiny_lfw.pictures())
