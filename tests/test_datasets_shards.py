"""Texts in shards: the official layouts of C4 and Wiki-40B, made small; wrong files in one line."""

import gzip
import json
import struct

import numpy as np
import pytest

from replications.datasets.text import shards
from replications.errors import UserError

C4 = {
    "layout": "json.gz",
    "train": "c4-train.*.json.gz",
    "validation": "c4-validation.0000[0-3]-of-*.json.gz",
    "test": "c4-validation.0000[4-7]-of-*.json.gz",
    "bytes": [None, None, None],
}
SPLITS = ("train", "validation", "test")
WIKI = {**C4, "layout": "tfrecord", **{split: f"wiki40b-{split}.tfrecord-*" for split in SPLITS}}


def c4_shard(path, *texts):
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        for text in texts:
            stream.write(json.dumps({"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": "u"}) + "\n")


def c4(folder):
    c4_shard(folder / "c4-train.00001-of-01024.json.gz", "third")
    c4_shard(folder / "c4-train.00000-of-01024.json.gz", "first é", "second\nline")
    for part in range(8):
        c4_shard(folder / f"c4-validation.0000{part}-of-00008.json.gz", f"v{part}")


def length_delimited(number, content):
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def example(**features):
    entries = b""
    for name, value in features.items():
        values = length_delimited(1, length_delimited(1, value))
        entries += length_delimited(1, length_delimited(1, name.encode()) + length_delimited(2, values))
    return length_delimited(1, entries)


def tfrecord(path, *records):
    with path.open("wb") as stream:
        for record in records:
            head = struct.pack("<Q", len(record))
            stream.write(head + struct.pack("<I", shards.masked_crc32c(head)) + record + b"\0\0\0\0")


def wiki(folder):
    for split, texts in (("train", (b"one", b"two")), ("validation", (b"three",)), ("test", (b"\xff",))):
        path = folder / f"wiki40b-{split}.tfrecord-00000-of-00001"
        tfrecord(path, *(example(wikidata_id=b"Q1", text=text, version_id=b"7") for text in texts))


def whole(folder):
    text = np.load(folder / "text.npy", mmap_mode="r")
    return text.tobytes(), np.load(folder / "splits.npy").tolist()


def test_c4_is_read_in_the_order_of_its_shards(tmp_path):
    c4(tmp_path)
    facts = shards.prepare(tmp_path, C4, {"text": tmp_path}, 1)
    train = "first é\0second\nline\0third\0".encode()
    assert whole(tmp_path) == (
        train + b"v0\0v1\0v2\0v3\0v4\0v5\0v6\0v7\0",
        [0, len(train), len(train) + 12, len(train) + 24],
    )
    assert facts["documents"] == {"train": 3, "validation": 4, "test": 4}


def test_a_budget_of_bytes_needs_the_first_shards_only(tmp_path):
    c4(tmp_path)
    (tmp_path / "c4-train.00001-of-01024.json.gz").write_bytes(b"never read")
    facts = shards.prepare(tmp_path, {**C4, "bytes": [12, 3, None]}, {"text": tmp_path}, 1)
    text, splits = whole(tmp_path)
    assert text.startswith("first é\0sec".encode() + b"v0\0v4") and splits == [0, 12, 15, 27]
    assert facts["documents"]["train"] == 2


def test_wiki_40b_is_read_from_its_records(tmp_path):
    wiki(tmp_path)
    shards.prepare(tmp_path, WIKI, {"text": tmp_path}, 1)
    assert whole(tmp_path) == (b"one\0two\0three\0\xff\0", [0, 8, 14, 16])


def test_the_checksum_is_that_of_tfrecord():
    # RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 8a9136aa
    rotated = (0x8A9136AA >> 15 | 0x8A9136AA << 17) & 0xFFFFFFFF
    assert shards.masked_crc32c(bytes(32)) == (rotated + 0xA282EAD8) & 0xFFFFFFFF


def test_long_texts_have_lengths_of_several_bytes():
    text = b"x" * 300
    size = bytes([0xAC, 0x02])  # 300 in base 128, the least first
    message = bytes([0x0A]) + size + text + bytes([0x10, 0x05])
    assert shards._fields(message, 1) == [text]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: (p / "c4-train.00000-of-01024.json.gz").write_bytes(b"no gzip"), "00000-of-01024.*damaged"),
        (lambda p: cut_short(p / "c4-train.00001-of-01024.json.gz"), "00001-of-01024.*truncated"),
        (lambda p: raw_line(p / "c4-train.00001-of-01024.json.gz", b'{"txt": 1}'), "line 1: not a JSON object with"),
        (lambda p: raw_line(p / "c4-train.00001-of-01024.json.gz", b"[]"), "line 1: not a JSON object with"),
        (lambda p: [f.unlink() for f in p.glob("*validation.0000[4-7]*")], r"no shard .*\(the test part\)"),
        (lambda p: [raw_line(f, b"") for f in p.glob("*train*")], "the train text is empty"),
    ],
)
def test_wrong_c4_shards_are_named(tmp_path, change, message):
    c4(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        shards.prepare(tmp_path, C4, {"text": tmp_path}, 1)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-9])


def raw_line(path, line):
    path.write_bytes(gzip.compress(line))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"nothing of the kind", "not a TFRecord file"),
        (b"\x05", "truncated"),
        (None, "truncated"),
        (b"\xff\xff", "not a tf.train.Example"),
        (b"\x0a\x00", "an Example without 'text'"),
    ],
)
def test_wrong_wiki_40b_shards_are_named(tmp_path, content, message):
    wiki(tmp_path)
    path = tmp_path / "wiki40b-train.tfrecord-00000-of-00001"
    if content is None:
        cut_short(path)
    elif "Example" in message:
        tfrecord(path, content)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        shards.prepare(tmp_path, WIKI, {"text": tmp_path}, 1)
