"""CelebA, RecordIO and identity folders, on small files in the official layouts."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny_lfw
from PIL import Image

from replications.datasets.decoding import decode
from replications.datasets.faces import celeba, folders, recordio
from replications.datasets.faces.align import TEMPLATE_112, similarity, warp
from replications.errors import UserError


def made(target: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in target.glob("*.npy")}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, "test"))


# --- alignment


def test_a_similarity_is_found_again():
    draws = np.random.default_rng(0)
    for _ in range(20):
        angle, scale, shift = draws.uniform(-3, 3), draws.uniform(0.2, 5), draws.uniform(-50, 50, 2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = draws.uniform(0, 100, (5, 2))
        matrix = similarity(points, points @ turn.T + shift)
        assert np.allclose(matrix, np.column_stack([turn, shift]))


def test_a_mirrored_face_is_not_mirrored_back_and_no_small_move_is_better():
    draws = np.random.default_rng(1)
    source = TEMPLATE_112 * [-1, 1] + draws.normal(0, 2, (5, 2))
    matrix = similarity(source, TEMPLATE_112)
    assert np.linalg.det(matrix[:, :2]) > 0

    def distance(a: float, b: float, x: float, y: float) -> float:
        moved = source @ np.array([[a, -b], [b, a]]).T + [x, y]
        return ((moved - TEMPLATE_112) ** 2).sum()

    best = np.array([matrix[0, 0], matrix[1, 0], *matrix[:, 2]])
    for step in np.vstack([np.eye(4), -np.eye(4)]) * [1e-3, 1e-3, 0.1, 0.1]:
        assert distance(*(best + step)) > distance(*best)


def test_landmarks_at_one_place_are_refused():
    with pytest.raises(ValueError, match="all at one place"):
        similarity(np.ones((5, 2)), TEMPLATE_112)


def test_warping_takes_each_pixel_from_where_the_matrix_says():
    """Against bilinear interpolation written out, with pixel centres at whole numbers."""
    image = np.asarray(Image.open(io.BytesIO(tiny_lfw.jpeg(3, (60, 50)))))
    matrix = np.array([[0.9, -0.3, 4.2], [0.3, 0.9, -2.6]])
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    found = np.asarray(warp(Image.fromarray(image), matrix, 40)).astype(float)
    checked = 0
    for y in range(40):
        for x in range(40):
            u, v = inverse @ [x, y, 1]
            i, j = int(np.floor(u)), int(np.floor(v))
            if 0 <= i < 59 and 0 <= j < 49:
                a, b = u - i, v - j
                top, low = image[j, i : i + 2].astype(float), image[j + 1, i : i + 2].astype(float)
                expected = (1 - b) * ((1 - a) * top[0] + a * top[1]) + b * ((1 - a) * low[0] + a * low[1])
                assert np.abs(found[y, x] - expected).max() <= 1.01
                checked += 1
            elif u < -1 or v < -1 or u > 60 or v > 50:
                assert not found[y, x].any()
    assert checked > 500


# --- CelebA

CELEBA_OPTIONS = {"size": 112, "num_images": 7, "num_identities": 3}
IDENTITIES = {1: 2, 2: 3, 3: 1, 4: 2, 5: 3, 6: 3, 7: 1}


def spots(seed: int) -> tuple[np.ndarray, bytes]:
    """A 178x218 picture with a bright spot at each landmark."""
    draws = np.random.default_rng(seed)
    lean, shift = draws.uniform(-0.15, 0.15), draws.uniform(-5, 5, 2)
    points = (TEMPLATE_112 @ [[1.1, lean], [-lean, 1.1]] + [28, 55] + shift).round()
    image = np.zeros((218, 178, 3), np.uint8)
    for x, y in points.astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=98)
    return points.astype(int), out.getvalue()


def write_celeba(folder: Path, zipped: bool = True) -> dict[str, Path]:
    files = {
        "images": folder / ("img_align_celeba.zip" if zipped else "img_align_celeba"),
        "identity": folder / "identity_CelebA.txt",
        "landmarks": folder / "list_landmarks_align_celeba.txt",
    }
    columns = " ".join(f"{point}_{axis}" for point in celeba.COLUMNS for axis in "xy")
    landmarks = [f"{len(IDENTITIES)}", columns]
    pictures = {}
    for number in IDENTITIES:
        points, pictures[f"{number:06}.jpg"] = spots(number)
        landmarks.append(f"{number:06}.jpg  " + "  ".join(map(str, points.ravel())))
    if zipped:
        with zipfile.ZipFile(files["images"], "w") as bundle:
            bundle.writestr("img_align_celeba/", "")
            for name, data in pictures.items():
                bundle.writestr(f"img_align_celeba/{name}", data)
    else:
        files["images"].mkdir()
        for name, data in pictures.items():
            (files["images"] / name).write_bytes(data)
    files["identity"].write_text("".join(f"{n:06}.jpg {i}\n" for n, i in IDENTITIES.items()))
    files["landmarks"].write_text("\n".join(landmarks) + "\n")
    return files


@pytest.mark.parametrize(("zipped", "workers"), [(True, 1), (False, 1), (True, 2)])
def test_celeba_is_aligned_to_the_template(tmp_path, zipped, workers):
    files = write_celeba(tmp_path, zipped)
    target = tmp_path / "target"
    target.mkdir()
    assert celeba.prepare(target, CELEBA_OPTIONS, files, workers) == {"num_images": 7, "num_identities": 3}
    arrays = made(target)
    assert arrays["identity"].tolist() == [1, 2, 0, 1, 2, 2, 0]
    assert arrays["fold"].tolist() == [0] * 7
    for image in arrays["images"]:
        for x, y in TEMPLATE_112.round().astype(int):
            assert image[y, x].mean() > 200  # the spot came to where the template has it
        assert image[:30].max() < 60


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("identity", "000003.jpg 1\n", "", r"identity_CelebA\.txt has no line for 000003\.jpg"),
        ("identity", "000003.jpg 1", "000003.jpg", r"identity_CelebA\.txt:3: expected"),
        ("identity", "000003.jpg 1", "000003.jpg 4", r"identities outside 1\.\.3"),
        ("identity", " 1\n", " 3\n", r"identity 1 has no image"),
        ("landmarks", "7\n", "8\n", "says that it has 8 images, and has 7"),
        ("landmarks", "nose_x", "chin_x", r"landmarks_align_celeba\.txt:2: expected the columns lefteye_x"),
        ("landmarks", "000003.jpg", "000009.jpg", r"has no line for 000003\.jpg"),
        ("identity", "000003.jpg 1", "000002.jpg 1", r"identity_CelebA\.txt:3: 000002\.jpg occurs twice"),
        ("identity", "000003.jpg 1", "000003.jpg ¹", r"identity_CelebA\.txt:3: expected"),
        ("landmarks", "000003.jpg  ", "000003.jpg nan ", r":5: expected an image name and ten numbers"),
    ],
)
def test_celeba_lists_that_are_not_official_are_told(tmp_path, file, old, new, message):
    files = write_celeba(tmp_path)
    text = files[file].read_text()
    assert old in text
    files[file].write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        celeba.prepare(tmp_path, CELEBA_OPTIONS, files, 1)


def test_a_damaged_celeba_zip_is_told(tmp_path):
    files = write_celeba(tmp_path)
    data = files["images"].read_bytes()
    files["images"].write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"img_align_celeba\.zip is truncated or damaged"):
        celeba.prepare(tmp_path, CELEBA_OPTIONS, files, 1)


# --- RecordIO


def packed(data: bytes) -> bytes:
    """Write a record as dmlc-core does: cut at each aligned occurrence of the magic number."""
    cuts = [i for i in range(0, len(data) - 3, 4) if data[i : i + 4] == recordio.MAGIC]
    parts = [data[a:b] for a, b in zip([0, *(c + 4 for c in cuts)], [*cuts, len(data)], strict=True)]
    out = b""
    for number, part in enumerate(parts):
        kind = 0 if len(parts) == 1 else 1 if number == 0 else 3 if number == len(parts) - 1 else 2
        out += recordio.MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def labelled(labels: list[float] | float, data: bytes = b"") -> bytes:
    """An image header as MXNet's recordio.pack writes it, and the data."""
    if isinstance(labels, list):
        return struct.pack("<IfQQ", len(labels), 0, 0, 0) + struct.pack(f"<{len(labels)}f", *labels) + data
    return struct.pack("<IfQQ", 0, labels, 0, 0) + data


def write_records(folder: Path, labels: list[int], identities: int = 3, identity_records: bool = True) -> list[bytes]:
    """Write train.rec, train.idx and property as insightface does; labels must be sorted. Returns the JPEGs."""
    jpegs = [tiny_lfw.jpeg(seed, (112, 112), quality=60 + seed) for seed in range(len(labels))]
    records = [labelled(label if n % 2 else [float(label), 0.0], jpegs[n]) for n, label in enumerate(labels)]
    if identity_records:
        first = len(labels) + 1
        ranges = []
        for identity in range(identities):
            mine = [n + 1 for n, label in enumerate(labels) if label == identity] or [1, 0]
            ranges.append(labelled([float(mine[0]), float(mine[-1] + 1)]))
        records = [labelled([float(first), float(first + identities)]), *records, *ranges]
    else:
        records = [labelled(0.0), *records]
    rec, idx = b"", ""
    for key, record in enumerate(records):
        idx += f"{key}\t{len(rec)}\n"
        rec += packed(record)
    folder.mkdir(exist_ok=True)
    (folder / "train.rec").write_bytes(rec)
    (folder / "train.idx").write_text(idx)
    (folder / "property").write_text(f"{identities},112,112")
    return jpegs


def prepare_records(tmp_path: Path, workers: int = 1) -> dict[str, np.ndarray]:
    target = tmp_path / "target"
    target.mkdir(exist_ok=True)
    recordio.prepare(target, {"size": 112}, {"records": tmp_path / "faces"}, workers)
    return made(target)


@pytest.mark.parametrize(("identity_records", "workers"), [(True, 1), (False, 1), (True, 2)])
def test_records_become_rows(tmp_path, identity_records, workers):
    labels = [0, 0, 1, 2, 2, 2]
    jpegs = write_records(tmp_path / "faces", labels, identity_records=identity_records)
    arrays = prepare_records(tmp_path, workers)
    assert arrays["identity"].tolist() == labels
    assert arrays["identity"].dtype == np.int32 and arrays["fold"].tolist() == [0] * 6
    assert all(np.array_equal(row, pixels(data)) for row, data in zip(arrays["images"], jpegs, strict=True))


def test_a_record_that_holds_the_magic_number_is_joined_again(tmp_path):
    """dmlc-core cuts such a record in parts; without joining, its JPEG would be damaged."""
    data = b"1234" + recordio.MAGIC + b"56" + recordio.MAGIC + recordio.MAGIC * 2 + b"7890123"
    aligned = labelled(5.0, data + recordio.MAGIC)
    assert recordio.MAGIC in aligned[24::4] or len(packed(aligned)) > len(aligned) + 8
    path = tmp_path / "x.rec"
    path.write_bytes(packed(labelled(1.0, b"first")) + packed(aligned))
    with path.open("rb") as stream:
        offset = len(packed(labelled(1.0, b"first")))
        record = recordio.read_record(stream, offset, path)
    assert record.data == data + recordio.MAGIC and record.labels.tolist() == [5.0]


@pytest.mark.parametrize("identity_records", [True, False])
def test_an_identity_without_images_is_told(tmp_path, identity_records):
    write_records(tmp_path / "faces", [0, 0, 2, 2], identity_records=identity_records)
    with pytest.raises(UserError, match=r"train\.rec: identity 1 has no image"):
        prepare_records(tmp_path)


def test_labels_beyond_the_identities_are_told(tmp_path):
    write_records(tmp_path / "faces", [0, 1, 2, 3], identities=3)
    with pytest.raises(UserError, match=r"has labels 0\.\.3 for 3 identities"):
        prepare_records(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train.rec", lambda b: b[:-20], r"train\.rec (ends within|has no) .*record at byte .*truncated"),
        ("train.rec", lambda b: b[: len(b) // 2], r"train\.rec (ends within|has no) .*record at byte .*truncated"),
        ("train.rec", lambda b: b[:8] + b"\xff" + b[9:], r"record at byte 0 is too short for its header"),
        ("train.rec", lambda b: b"x" + b[1:], r"train\.rec has no record at byte 0"),
        (
            "train.rec",
            lambda b: b.replace(b"JFIF", b"JUNK").replace(b"\xff\xd8\xff", b"\0\0\0"),
            "cannot be read as an",
        ),
        ("train.idx", lambda b: b"0\t0\n1\n", r"train\.idx: expected lines"),
        ("train.idx", lambda b: b"zero\t0\n", r"train\.idx: expected lines"),
        ("train.idx", lambda b: b.replace(b"\n2\t", b"\n99\t"), r"train\.idx has no line for record 2"),
        ("train.idx", lambda b: b.replace(b"\n6\t", b"\n99\t"), r"its index has no record 6, an identity"),
        ("train.idx", lambda b: b[b.index(b"\n") + 1 :], r"its index has no record 0"),
        ("property", lambda b: b"3,96,112", r"property: the images are 112x96 pixels instead of 112x112"),
        ("property", lambda b: b"3", r"property: expected 'identities,height,width'"),
    ],
)
def test_damaged_records_are_told(tmp_path, file, change, message):
    write_records(tmp_path / "faces", [0, 0, 1, 2])
    path = tmp_path / "faces" / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        prepare_records(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path / "faces") in str(error.value)


# --- identity folders


def write_folders(root: Path, sizes: dict[str, int]) -> dict[str, Path]:
    for seed, (name, count) in enumerate(sizes.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03}.jpg").write_bytes(tiny_lfw.jpeg(seed * 100 + number, (112, 112)))
    (root / "readme.txt").write_text("not an identity")
    return {"images": root}


FOLDER_OPTIONS = {"image_size": 112, "crop": None, "size": 112}


@pytest.mark.parametrize("workers", [1, 2])
def test_folders_become_rows_without_the_excluded(tmp_path, workers):
    files = write_folders(tmp_path / "faces", {"0000100": 2, "0000045": 3, "0000099": 1})
    (tmp_path / "target").mkdir()
    facts = folders.prepare(tmp_path / "target", FOLDER_OPTIONS | {"exclude": ["0000099"]}, files, workers)
    assert facts == {"num_images": 5, "num_identities": 2, "excluded": ["0000099"]}
    arrays = made(tmp_path / "target")
    assert arrays["identity"].tolist() == [0, 0, 0, 1, 1]
    expected = [tiny_lfw.jpeg(seed, (112, 112)) for seed in (100, 101, 102, 0, 1)]
    assert all(np.array_equal(row, pixels(data)) for row, data in zip(arrays["images"], expected, strict=True))


def test_faulty_folders_are_told(tmp_path):
    files = write_folders(tmp_path / "faces", {"0000045": 2, "0000099": 0})
    with pytest.raises(UserError, match="0000099 has no image"):
        folders.prepare(tmp_path, FOLDER_OPTIONS, files, 1)
    with pytest.raises(UserError, match="no identity 0000046, which is to be left out"):
        folders.prepare(tmp_path, FOLDER_OPTIONS | {"exclude": ["0000046"]}, files, 1)
    (tmp_path / "faces/0000099/000.jpg").write_bytes(b"GIF89a?")
    with pytest.raises(UserError, match=r"0000099/000\.jpg cannot be read as an image"):
        folders.prepare(tmp_path, FOLDER_OPTIONS, files, 1)
    with pytest.raises(UserError, match=r"options of the folder set: exlude: unknown key .did you mean 'exclude'"):
        folders.prepare(tmp_path, FOLDER_OPTIONS | {"exlude": []}, files, 1)


@pytest.mark.parametrize("flag", [0, 2])
def test_a_record_file_without_a_header_keeps_its_first_record(tmp_path, flag):
    labels = [0, 0, 1]
    jpegs = write_records(tmp_path / "faces", labels, identities=2, identity_records=False)
    rec, idx = b"", ""
    for key, (label, data) in enumerate(zip(labels, jpegs, strict=True)):
        idx += f"{key}\t{len(rec)}\r\n"
        rec += packed(labelled([float(label), 0.0] if flag else float(label), data))
    (tmp_path / "faces/train.rec").write_bytes(rec)
    (tmp_path / "faces/train.idx").write_bytes(b"\xef\xbb\xbf" + idx.encode())
    (tmp_path / "faces/property").write_bytes(b"\xef\xbb\xbf2,112,112\r\n")
    arrays = prepare_records(tmp_path)
    assert arrays["identity"].tolist() == labels
    assert all(np.array_equal(row, pixels(data)) for row, data in zip(arrays["images"], jpegs, strict=True))


@pytest.mark.parametrize("label", [0.5, float("nan"), float("inf")])
def test_a_label_that_is_no_number_of_an_identity_is_told(tmp_path, label):
    jpegs = write_records(tmp_path / "faces", [0], identities=1, identity_records=False)
    (tmp_path / "faces/train.rec").write_bytes(packed(labelled(label, jpegs[0])))
    (tmp_path / "faces/train.idx").write_text("0\t0\n")
    with pytest.raises(UserError, match=r"train\.rec: the record at byte 0 has the label .*, no whole number"):
        prepare_records(tmp_path)


def litter(folder: Path, name: str) -> None:
    """What macOS, Windows and network storage leave in `folder`, beside a picture `name`."""
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "notes.txt").write_text("not a picture")
    for own in (f"._{name}", f".{name}", f"@{name}"):
        (folder / own).write_bytes(b"\0\5\x16\7")
    for place in (".cache", "@eaDir", "__MACOSX"):
        (folder / place).mkdir()
        (folder / place / name).write_bytes(b"\0\5\x16\7")
    (folder / "folder.jpg").mkdir()  # a folder, and no picture


def test_what_file_managers_leave_is_no_identity_and_no_image(tmp_path):
    files = write_folders(tmp_path / "faces", {"one": 2, "two": 1})
    litter(tmp_path / "faces/one", "000.jpg")
    litter(tmp_path / "faces", "one")
    (tmp_path / "faces/folder.jpg").rmdir()
    (tmp_path / "target").mkdir()
    facts = folders.prepare(tmp_path / "target", FOLDER_OPTIONS, files, 1)
    assert (facts["num_images"], facts["num_identities"]) == (3, 2)
    assert made(tmp_path / "target")["identity"].tolist() == [0, 0, 1]


@pytest.mark.parametrize("zipped", [True, False])
def test_what_file_managers_leave_is_no_celebrity(tmp_path, zipped):
    files = write_celeba(tmp_path, zipped)
    if zipped:
        with zipfile.ZipFile(files["images"], "a") as bundle:
            for name in ("__MACOSX/img_align_celeba/._000001.jpg", "img_align_celeba/@eaDir/000001.jpg", ".x.jpg"):
                bundle.writestr(name, b"\0\5\x16\7")
    else:
        litter(files["images"], "000001.jpg")
        (files["images"] / "folder.jpg").rmdir()
    for name in ("identity", "landmarks"):
        files[name].write_bytes(b"\xef\xbb\xbf" + files[name].read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "target").mkdir()
    celeba.prepare(tmp_path / "target", CELEBA_OPTIONS, files, 1)
    assert made(tmp_path / "target")["identity"].tolist() == [1, 2, 0, 1, 2, 2, 0]
