"""Training faces in MXNet's RecordIO, in the layout of insightface: CASIA-WebFace, MS1MV2 and others.

A folder with ``train.rec``, ``train.idx`` and ``property``. The reader is our own: MXNet is no longer maintained.

train.rec   records: uint32 magic, uint32 (3 bits part, 29 bits length), data, zeros to a multiple of 4 bytes
            data: uint32 flag, float32 label, uint64 id, uint64 id, then `flag` float32 labels where flag > 0, then
            the JPEG. A record whose data holds the magic is stored in parts (1 first, 2 middle, 3 last) without it.
train.idx   lines ``key<TAB>offset``
property    ``identities,height,width``

Record 0 has labels (first, last): the images are the records 1 .. first - 1, and the records first .. last - 1 are the
identities, with labels (begin, end): the identity's images are the records begin .. end - 1. Where record 0 holds an
image there is no such header, and all records are images.
"""

import functools
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from pydantic import Field

from replications.datasets.decoding import decode
from replications.datasets.lines import read_text
from replications.datasets.rows import cut, fill_rows
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

MAGIC = struct.pack("<I", 0xCED7230A)
IMAGE_HEADER = struct.Struct("<IfQQ")
WHOLE, FIRST, MIDDLE, LAST = range(4)
ROWS_A_JOB = 512


class Options(Strict):
    """Options of the set."""

    size: int = Field(gt=0, description="width and height of the stored images, pixels")


class Record(NamedTuple):
    """A record's labels, [1] or [flag], and what follows: a JPEG, or nothing."""

    labels: np.ndarray
    data: bytes


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write images, identity and fold (all 0) into `target`, in the order of the records.

    Raises UserError for a damaged file, an image of another size, an identity without images, and labels that are
    not 0 .. identities - 1.
    """
    wanted = parse(Options, options, "options of the RecordIO set")
    folder = files["records"]
    num_identities = read_property(folder / "property", wanted.size)
    rec = folder / "train.rec"
    offsets = read_index(folder / "train.idx")
    keys = _image_keys(rec, offsets)
    missing = keys[~np.isin(keys, np.fromiter(offsets, np.int64))]
    if len(missing):
        raise UserError(f"{folder / 'train.idx'} has no line for record {missing[0]}")
    places = np.array([offsets[key] for key in keys.tolist()], np.int64)
    shape = (len(keys), wanted.size, wanted.size, 3)
    arrays = {"images": (shape, "uint8"), "identity": (shape[:1], "int32")}
    function = functools.partial(record_rows, rec=rec, size=wanted.size)
    fill_rows(target, arrays, cut(places, ROWS_A_JOB), function, workers, f"prepare {folder.name}")

    identity = np.load(target / "identity.npy")
    if identity.min() < 0 or identity.max() >= num_identities:
        raise UserError(f"{rec} has labels {identity.min()}..{identity.max()} for {num_identities} identities")
    counts = np.bincount(identity, minlength=num_identities)
    if not counts.all():
        raise UserError(f"{rec}: identity {int(np.argmin(counts))} has no image")
    np.save(target / "fold.npy", np.zeros(len(keys), np.int8))
    return {"num_images": len(keys), "num_identities": num_identities}


def read_property(path: Path, size: int) -> int:
    """Return the number of identities; raises UserError where the images are not `size` x `size`."""
    try:
        identities, height, width = map(int, read_text(path).strip().split(","))
    except ValueError:
        raise UserError(f"{path}: expected 'identities,height,width'") from None
    if (height, width) != (size, size):
        raise UserError(f"{path}: the images are {width}x{height} pixels instead of {size}x{size}")
    return identities


def read_index(path: Path) -> dict[int, int]:
    """Parse train.idx: record key -> offset in train.rec, bytes."""
    try:
        numbers = np.array(read_text(path).split(), np.int64)
    except (ValueError, OverflowError):
        numbers = np.zeros(1, np.int64)
    if len(numbers) % 2 or not len(numbers) or numbers.min() < 0:
        raise UserError(f"{path}: expected lines with a record's key and its offset")
    if (twice := len(numbers) // 2 - len(np.unique(numbers[::2]))) > 0:
        raise UserError(f"{path} has {twice} records whose keys occur twice")
    return dict(zip(numbers[::2].tolist(), numbers[1::2].tolist(), strict=True))


def _image_keys(rec: Path, offsets: dict[int, int]) -> np.ndarray:
    """Return the keys of the image records; raises UserError for an identity without images."""
    try:
        with rec.open("rb") as stream:
            if 0 not in offsets:
                raise UserError(f"{rec}: its index has no record 0")
            head = read_record(stream, offsets[0], rec)
            if head.data:  # no header: every record is an image, this one too
                return np.array(sorted(offsets), np.int64)
            if len(head.labels) < 2:  # without identity records: every record but this one is an image
                return np.array(sorted(key for key in offsets if key), np.int64)
            first, last = int(head.labels[0]), int(head.labels[1])
            for key in range(first, last):
                if key not in offsets:
                    raise UserError(f"{rec}: its index has no record {key}, an identity")
                labels = read_record(stream, offsets[key], rec).labels
                if len(labels) < 2 or not 1 <= labels[0] < labels[1] <= first:
                    raise UserError(f"{rec}: identity {key - first} has no image (its records: {labels.tolist()})")
    except OSError as error:
        raise UserError(f"cannot read {rec}: {error.strerror}") from error
    return np.arange(1, first, dtype=np.int64)


def read_record(stream: BinaryIO, offset: int, rec: Path) -> Record:
    """Read the record at `offset`; raises UserError where there is none, or the file ends in it."""
    stream.seek(offset)
    parts = []
    while True:
        head = stream.read(8)
        if len(head) < 8 or head[:4] != MAGIC:
            raise UserError(f"{rec} has no record at byte {offset}: it is truncated, or belongs to another train.idx")
        word = struct.unpack("<I", head[4:])[0]
        part, length = word >> 29, word & 0x1FFFFFFF
        data = stream.read(-(-length // 4) * 4)
        if len(data) < length:
            raise UserError(f"{rec} ends within the record at byte {offset}: it is truncated")
        parts.append(data[:length])
        if part in (WHOLE, LAST):
            break
    data = MAGIC.join(parts)
    flag, label, _, _ = IMAGE_HEADER.unpack_from(data.ljust(IMAGE_HEADER.size, b"\0"))
    end = IMAGE_HEADER.size + 4 * flag
    if len(data) < end:
        raise UserError(f"{rec}: the record at byte {offset} is too short for its header")
    if not flag:
        return Record(np.array([label], np.float32), data[end:])
    return Record(np.frombuffer(data[IMAGE_HEADER.size : end], "<f4"), data[end:])


def record_rows(places: np.ndarray, rec: Path, size: int) -> dict[str, np.ndarray]:
    """Read and decode the records at `places` [n]: images uint8 [n, size, size, 3] and identity int32 [n]."""
    images = np.empty((len(places), size, size, 3), np.uint8)
    identity = np.empty(len(places), np.int32)
    with rec.open("rb") as stream:
        for row, offset in enumerate(places.tolist()):
            record = read_record(stream, offset, rec)
            if not float(record.labels[0]).is_integer():
                raise UserError(f"{rec}: the record at byte {offset} has the label {record.labels[0]}, no whole number")
            identity[row] = record.labels[0]
            images[row] = np.asarray(decode(record.data, f"{rec}: the record at byte {offset}", (size, size)))
    return {"images": images, "identity": identity}
