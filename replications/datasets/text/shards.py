"""Texts that come as many shards of documents: C4 (gzip, a JSON document a line) and Wiki-40B (TFRecord).

Shards are read as streams, in the order of their names, until a split has the bytes it is to have: memory holds one
document at a time, and of a corpus larger than the disk only the first shards are needed. Both layouts are read with
the standard library. (Wiki-40B as parquet would need a reader that is not locked.)

TFRecord    records: uint64 length, uint32 masked CRC-32C of these 8 bytes, data, uint32 masked CRC-32C of the data
            data: a ``tf.train.Example``, protocol buffer of a map from feature to a list of byte strings
"""

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from pydantic import Field

from replications.datasets.extract import reading
from replications.datasets.litter import is_litter
from replications.datasets.text.files import SPLITS
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

SEPARATOR = b"\0"  # after each document: no text holds it
HEADER_BYTES = 128  # of the .npy file, whose length is known last
LENGTH = struct.Struct("<Q")
CHECK = struct.Struct("<I")
CRC32C = 0x82F63B78  # reversed polynomial (Castagnoli)
VARINT, BITS64, BYTES, BITS32 = 0, 1, 2, 5  # wire types of protocol buffers


class Options(Strict):
    """Options of a set. Bytes are of the documents with a separator after each."""

    layout: Literal["json.gz", "tfrecord"]
    train: str = Field(description="pattern of the split's shards in the folder, as in c4-train.*.json.gz")
    validation: str
    test: str
    bytes: tuple[int | None, int | None, int | None] = Field(description="at most so many a split; null: all")
    feature: str = Field("text", description="key of the text in a document")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``text`` uint8 [N] and ``splits`` int64 [4] from the folder ``text``.

    Raises UserError, naming the shard, for one that is damaged, and for a split without a document.
    """
    wanted = parse(Options, options, "options of the text in shards")
    read = READERS[wanted.layout]
    sizes, documents = {}, {}
    with (target / "text.npy").open("wb") as stream:
        stream.seek(HEADER_BYTES)
        for split, most in zip(SPLITS, wanted.bytes, strict=True):
            pattern = getattr(wanted, split)
            shards = sorted(path for path in files["text"].glob(pattern) if not is_litter(path.name))
            if not shards:
                raise UserError(f"{files['text']} has no shard {pattern} (the {split} part): put at least one there")
            sizes[split], documents[split] = _write_split(stream, shards, read, wanted.feature, most)
            if not sizes[split]:
                raise UserError(f"{files['text']}: the {split} text is empty")
        stream.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": (sum(sizes.values()),)}
        np.lib.format.write_array_header_1_0(stream, header)
        if stream.tell() != HEADER_BYTES:
            raise RuntimeError(f"the header of {target / 'text.npy'} has {stream.tell()} bytes")
    np.save(target / "splits.npy", np.cumsum([0, *sizes.values()], dtype=np.int64))
    return {"bytes": sizes, "documents": documents}


def _write_split(
    stream: BinaryIO, shards: list[Path], read: Callable[[Path, str], Iterator[bytes]], feature: str, most: int | None
) -> tuple[int, int]:
    """Append documents until there are `most` bytes; the last one is cut. Returns bytes and documents."""
    size = documents = 0
    for shard in shards:
        for text in read(shard, feature):
            piece = text + SEPARATOR
            piece = piece if most is None else piece[: most - size]
            stream.write(piece)
            size, documents = size + len(piece), documents + 1
            if size == most:
                return size, documents
    return size, documents


def json_documents(shard: Path, feature: str) -> Iterator[bytes]:
    """Yield the texts of a gzip file with a JSON object a line, as UTF-8 bytes."""
    number = 0
    with reading(shard), gzip.open(shard, "rb") as lines:
        for line in lines:
            number += 1
            try:
                text = json.loads(line)[feature]
                if not isinstance(text, str):
                    raise ValueError("no text")
            except (ValueError, KeyError, TypeError, RecursionError):
                raise UserError(f"{shard}, line {number}: not a JSON object with '{feature}'") from None
            yield text.encode("utf-8", "surrogatepass")


def example_documents(shard: Path, feature: str) -> Iterator[bytes]:
    """Yield the first value of `feature` of each Example of a TFRecord file."""
    for record in records(shard):
        try:
            values = example_values(record, feature)
        except (IndexError, ValueError):
            raise UserError(f"{shard} holds a record that is not a tf.train.Example: fetch it again") from None
        if not values:
            raise UserError(f"{shard} holds an Example without '{feature}'")
        yield values[0]


READERS = {"json.gz": json_documents, "tfrecord": example_documents}


def records(shard: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file. The checksum of each length is checked: a wrong one would read astray."""
    size = shard.stat().st_size
    with reading(shard), shard.open("rb") as stream:
        while head := stream.read(LENGTH.size):
            check = stream.read(CHECK.size)
            whole = len(head) == LENGTH.size and len(check) == CHECK.size
            if whole and CHECK.unpack(check)[0] != masked_crc32c(head):
                raise UserError(f"{shard} is not a TFRecord file, or is damaged: fetch it again")
            length = LENGTH.unpack(head)[0] if whole else size
            if stream.tell() + length + CHECK.size > size:
                raise UserError(f"{shard} is truncated: fetch it again")
            yield stream.read(length)
            stream.seek(CHECK.size, 1)


def masked_crc32c(data: bytes) -> int:
    """CRC-32C, turned right by 15 bits, plus a constant: as TFRecord stores it."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (CRC32C if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def example_values(record: bytes, feature: str) -> list[bytes]:
    """Return the byte strings of a feature of an Example: features (1) → entries (1) → key (1), value (2) → bytes_list
    (1) → values (1). Raises IndexError or ValueError where the record is something else.
    """
    for features in _fields(record, 1):
        for entry in _fields(features, 1):
            if feature.encode() in _fields(entry, 1):
                return [
                    value for found in _fields(entry, 2) for values in _fields(found, 1) for value in _fields(values, 1)
                ]
    return []


def _fields(message: bytes, wanted: int) -> list[bytes]:
    """Return the length-delimited fields `wanted` of a protocol buffer; others are passed over."""
    found, place = [], 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == BYTES:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise ValueError("a field beyond the message's end")
            if tag >> 3 == wanted:
                found.append(message[place : place + length])
            place += length
        elif kind == VARINT:
            _, place = _varint(message, place)
        elif kind in (BITS64, BITS32):
            place += 8 if kind == BITS64 else 4
        else:
            raise ValueError(f"wire type {kind}")
    return found


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
