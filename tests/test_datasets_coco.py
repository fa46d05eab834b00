"""Files in COCO's and VOC's layouts as people write them: each fault is one line with the id; nothing is mixed up."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from replications.datasets.detection import coco, voc
from replications.errors import UserError

NAN, INF = float("nan"), float("inf")


def jpeg(width=40, height=30, seed=1):
    stream = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def image(number, **more):
    return {"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 30, **more}


def mark(number, of=1, category=1, **more):
    return {"id": number, "image_id": of, "category_id": category, "bbox": [5, 6, 10, 12], **more}


def content():
    """Two images, two categories, an annotation of each."""
    return {
        "images": [image(1), image(2)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [mark(7), mark(8, 2, 2)],
    }


def prepared(tmp_path, written, files=None):
    """Prepare a set whose three parts are the one file, and return facts and arrays of its first part."""
    target, source = tmp_path / "set", tmp_path / "source"
    target.mkdir()
    (source / "i").mkdir(parents=True)
    for name, data in {"1.jpg": jpeg(seed=1), "2.jpg": jpeg(seed=2), **(files or {})}.items():
        (source / "i" / name).write_bytes(data)
    (source / "a.json").write_bytes(written if isinstance(written, bytes) else json.dumps(written).encode())
    part = {"annotations": "a.json", "folder": "i"}
    options = {"train": part, "validation": part, "test": part, "categories": 2}
    facts = coco.prepare(target, options, {"images": source}, 1)
    rows = facts["splits"][0]
    arrays = {path.stem: np.load(path) for path in target.glob("*.npy")}
    return facts, {name: array[:rows] for name, array in arrays.items() if name not in ("files", "file_start")}


def changed(path, value):
    """The content with the field at `path` replaced, or removed where the value is `...`."""
    found = content()
    *inner, last = path
    at = found
    for step in inner:
        at = at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return found


IMAGE, CATEGORY, ANNOTATION = ("images", 1), ("categories", 1), ("annotations", 0)
NO_ID = "number 2 of the list: its id must be a whole number"
BOX = "annotation 7 has the box"
FAULTS = [
    # ids
    ((*IMAGE, "id"), 1, "image 1 occurs twice"),
    ((*IMAGE, "id"), 1.0, "image 1 occurs twice"),
    ((*CATEGORY, "id"), 1, "category 1 occurs twice"),
    ((*ANNOTATION, "id"), 8, "annotation 8 occurs twice"),
    *(((*where, "id"), value, NO_ID) for where in (IMAGE, CATEGORY) for value in (1.2, True, "2", None, [2], NAN, ...)),
    ((*ANNOTATION, "id"), ..., "annotation number 1 of the list: its id"),
    ((*IMAGE, "id"), 10**30, "its id 1000000000000000000000000000000 is out of range"),
    ((*IMAGE, "id"), 1e30, "out of range"),
    ((*ANNOTATION, "image_id"), 3, "annotation 7 is of image 3, which is not listed"),
    ((*ANNOTATION, "image_id"), "1", "annotation 7: its image_id must be a whole number"),
    ((*ANNOTATION, "image_id"), True, "annotation 7: its image_id must be a whole number"),
    ((*ANNOTATION, "image_id"), ..., "annotation 7: its image_id must be a whole number, not missing"),
    ((*ANNOTATION, "category_id"), 3, "annotation 7 has the category 3, which is not listed"),
    ((*ANNOTATION, "category_id"), None, "annotation 7: its category_id must be a whole number"),
    # images
    ((*IMAGE, "file_name"), "1.jpg", "image 2 and image 1 have the same file 1.jpg"),
    ((*IMAGE, "file_name"), "./1.jpg", "image 2 and image 1 have the same file 1.jpg"),
    ((*IMAGE, "file_name"), "../a.json", "image 2: its file_name '../a.json' is not a file in the folder"),
    ((*IMAGE, "file_name"), "/etc/hosts", "image 2: its file_name '/etc/hosts' is not a file in the folder"),
    *(
        ((*IMAGE, "file_name"), value, "image 2: its file_name must be")
        for value in ("", " ", None, 5, "2\n.jpg", "\ud800", ...)
    ),
    ((*IMAGE, "file_name"), "3.jpg", "image 2.*3.jpg"),
    *(((*IMAGE, "width"), value, "image 2: its width") for value in (0, -40, 40.5, "40", None, True, 10**12, ...)),
    ((*IMAGE, "height"), 31, r"2.jpg \(image 2\) is 40x30 pixels, but annotated as 40x31"),
    ((*CATEGORY, "name"), None, "category 2: its name"),
    ((*CATEGORY, "name"), "dog\n", "category 2: its name"),
    ((*CATEGORY, "name"), ..., "category 2: its name"),
    # boxes, areas, crowds
    *(((*ANNOTATION, "bbox"), value, BOX) for value in (None, ..., [], [1, 2, 3], [1, 2, 3, 4, 5], "1234", {"x": 1})),
    *(((*ANNOTATION, "bbox", 2), value, BOX) for value in (NAN, INF, -1, None, "10", True, 10**400, 1e39, 3.4e38)),
    *(((*ANNOTATION, "area"), value, "annotation 7 has the area") for value in (NAN, INF, -1.0, None, "9", 1e39)),
    *(((*ANNOTATION, "iscrowd"), value, "annotation 7: its iscrowd") for value in (2, "0", None, 0.5, [])),
    # the whole
    (("images",), [], "a.json lists no image"),
    *(((key,), value, f"no list of objects '{key}'") for key in content() for value in (..., None, {"1": 2}, [1])),
]


@pytest.mark.parametrize(("path", "value", "match"), FAULTS)
def test_a_fault_of_a_coco_file_is_one_line_with_the_id(tmp_path, path, value, match):
    with pytest.raises(UserError, match=match) as error:
        prepared(tmp_path, changed(path, value))
    assert "\n" not in str(error.value)
    assert "a.json" in str(error.value) or "2.jpg" in str(error.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_named(tmp_path, text):
    with pytest.raises(UserError, match=r"a\.json is not in COCO's layout"):
        prepared(tmp_path, text)


def test_what_cocos_tools_take_is_taken(tmp_path):
    written = content()
    written["info"], written["licenses"] = {"year": 2017}, []
    written["images"][0] |= {"id": 1.0, "coco_url": None, "file_name": "./1.jpg", "width": 40.0}
    written["categories"][0]["supercategory"] = None
    written["annotations"] = [
        mark(0, bbox=[5.5, 6.25, 10.0, 0]),  # without area and iscrowd, of no height, with the id 0
        mark(1, area=99, iscrowd=True, segmentation=[[NAN]], attributes={}),  # a mask that is not used
        mark(2, of=2, category=2, bbox=[-4, -4, 100, 100], iscrowd=0.0),
    ]
    text = b"\xef\xbb\xbf" + json.dumps(written).encode()
    _, arrays = prepared(tmp_path, text)
    np.testing.assert_array_equal(arrays["boxes"][0], [[5.5, 6.25, 15.5, 6.25], [5, 6, 15, 18]])
    np.testing.assert_array_equal(arrays["boxes"][1], [[-4, -4, 96, 96], [0, 0, 0, 0]])
    assert arrays["labels"].tolist() == [[0, 0], [1, -1]]
    assert arrays["crowd"].tolist() == [[False, True], [False, False]]
    assert arrays["area"].tolist() == [[0, 99], [10000, 0]]


@pytest.mark.parametrize(
    "form",
    [
        [[NAN, 4, 20, 4, 20, 10]], [[6, 4, 20, 4, 1e9, 10]], [[6, 4, 20, 4]], [[6, 4, 20, 4, 20]], [["a"] * 6], [[]],
        [3, 4], {"size": [30, 40], "counts": [5, 5]}, {"size": [30, 40], "counts": [-5, 1205]}, {"size": [30, 40]},
        {"size": [3, 4], "counts": [12]}, {"size": [30, 40], "counts": "PPPPPPP"},
        {"size": [30, 40], "counts": ""}, {"size": [30, 40], "counts": "1"}, "mask", 5,
    ],
)  # fmt: skip
def test_a_mask_that_gives_no_box_is_named(tmp_path, form):
    written = changed((*ANNOTATION, "segmentation"), form)
    del written["annotations"][0]["bbox"]
    with pytest.raises(UserError, match="annotation 7 has no box, and its segmentation"):
        prepared(tmp_path, written)


def bomb():
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("data", [b"", b"text", jpeg()[:-200], jpeg()[:700], bomb()])
def test_a_picture_that_does_not_decode_is_found_when_it_is_prepared(tmp_path, data):
    with pytest.raises(UserError, match=r"2\.jpg \(image 2\) cannot be read as an image") as error:
        prepared(tmp_path, content(), {"2.jpg": data})
    assert "\n" not in str(error.value)


XML = (
    "<annotation><size><width>40</width><height>30</height></size><object><name>cat</name><bndbox><xmin>6</xmin>"
    "<ymin>7</ymin><xmax>15</xmax><ymax>18</ymax></bndbox></object></annotation>"
)
LAUGHS = (
    '<!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 50}">' for old, new in zip("abcdef", "bcdefg", strict=True))
    + "]>"
)


def voc_prepared(tmp_path, xml, names="a\r\n", mark=b""):
    root = tmp_path / "kit"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / "VOC2007" / folder).mkdir(parents=True)
    for name, text in (("a", xml), ("b", XML), ("c", XML)):
        (root / f"VOC2007/JPEGImages/{name}.jpg").write_bytes(jpeg())
        (root / f"VOC2007/Annotations/{name}.xml").write_text(text)
    for name, text in (("train", names), ("val", "b\n"), ("test", "c\n")):
        (root / f"VOC2007/ImageSets/Main/{name}.txt").write_bytes(mark + text.encode())
    options = {"train": ["VOC2007/train"], "validation": ["VOC2007/val"], "test": ["VOC2007/test"]}
    (tmp_path / "set").mkdir()
    voc.prepare(tmp_path / "set", options, {"devkit": root}, 1)
    return np.load(tmp_path / "set/boxes.npy")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("<name>cat</name>", "", "object 1: None is not a class"),
        ("cat", "unicorn", "object 1: 'unicorn' is not a class"),
        ("<xmin>6</xmin>", "", "object 1: its box"),
        ("<xmin>6<", "<xmin>nan<", "object 1: its box"),
        ("<xmin>6<", "<xmin>16<", "object 1: its box"),
        ("<ymax>18<", "<ymax>1e39<", "object 1: its box"),
        ("<ymax>18<", "<ymax>six<", "object 1: its box"),
        ("<width>40</width>", "", "is not an annotation of VOC"),
        ("<width>40<", "<width>41<", "is 40x30 pixels, but annotated as 41x30"),
        ("</annotation>", "", "is not an annotation of VOC"),
        ("<annotation>", LAUGHS + "<annotation>&g;", "is not an annotation of VOC"),
    ],
)
def test_a_fault_of_a_voc_annotation_is_one_line(tmp_path, old, new, match):
    with pytest.raises(UserError, match=match) as error:
        voc_prepared(tmp_path, XML.replace(old, new))
    assert "\n" not in str(error.value) and "/a." in str(error.value)


def test_voc_lists_may_have_any_line_ends_and_a_mark_and_name_an_image_once(tmp_path):
    boxes = voc_prepared(tmp_path, XML, mark=b"\xef\xbb\xbf")
    np.testing.assert_array_equal(boxes[:, 0], [[5, 6, 15, 18]] * 3)
    with pytest.raises(UserError, match=r"train\.txt lists no image"):
        voc_prepared(tmp_path / "none", XML, names="\n")
    with pytest.raises(UserError, match="in two splits"):
        voc_prepared(tmp_path / "again", XML, names="a\nb\n")
