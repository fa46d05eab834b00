"""Texts that come as files: enwik8 (one file), WikiText-103 (a zip with one file a split), PG-19 (a folder a split).

All become ``text`` uint8 [N] and ``splits`` int64 [4], the bounds of train, validation and test. Bytes are bytes:
nothing is decoded.
"""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from replications.datasets.extract import open_zip, reading
from replications.datasets.litter import entries, is_litter
from replications.errors import UserError

BLOCK = 1 << 24
SPLITS = ("train", "validation", "test")


def write_text(target: Path, parts: Iterable[bytes]) -> dict:
    """Write the splits' bytes, in order; returns how many bytes each has. Raises UserError for an empty one."""
    parts = list(parts)
    sizes = dict(zip(SPLITS, map(len, parts), strict=True))
    _check(sizes, str(target))
    np.save(target / "text.npy", np.frombuffer(b"".join(parts), np.uint8))
    np.save(target / "splits.npy", np.cumsum([0, *sizes.values()], dtype=np.int64))
    return {"bytes": sizes}


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``text`` and ``splits`` of the source ``text``. `options` has one of

    ``bytes``: how many bytes of a single file, or of the only file in a zip, each split has;
    ``members``: split -> file in a zip; ``folders``: split -> folder whose files are joined in order of their names.
    """
    source = files["text"]
    if "bytes" in options:
        sizes = dict(zip(SPLITS, options["bytes"], strict=True))
        pieces = _pieces_of_file(source, sum(sizes.values()))
    elif "members" in options:
        sizes = _member_sizes(source, options["members"])
        pieces = (piece for split in SPLITS for piece in _pieces_of_member(source, options["members"][split]))
    else:
        paths = {split: _texts(source / folder) for split, folder in options["folders"].items()}
        sizes = {split: sum(path.stat().st_size for path in paths[split]) for split in SPLITS}
        pieces = (path.read_bytes() for split in SPLITS for path in paths[split])
    _check(sizes, str(source))
    total = sum(sizes.values())
    text = np.lib.format.open_memmap(target / "text.npy", "w+", np.uint8, (total,))
    filled = 0
    for piece in pieces:
        text[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)[: total - filled]
        filled += len(piece)
    if filled < total:
        raise UserError(f"{source} has {filled} bytes, expected {total}: it is truncated, or not the file meant")
    text.flush()
    np.save(target / "splits.npy", np.cumsum([0, *sizes.values()], dtype=np.int64))
    return {"bytes": sizes}


def _check(sizes: dict[str, int], where: str) -> None:
    for split, size in sizes.items():
        if size < 1:
            raise UserError(f"{where}: the {split} text is empty")


def _texts(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: the set is not in its official layout")
    return [path for path in entries(folder) if path.suffix == ".txt"]


def _pieces_of_file(path: Path, most: int) -> Iterator[bytes]:
    if zipfile.is_zipfile(path):
        with open_zip(path) as bundle:
            names = [name for name in bundle.namelist() if not name.endswith("/") and not is_litter(name)]
        if len(names) != 1:
            raise UserError(f"{path} holds {len(names)} files, expected one")
        yield from _pieces_of_member(path, names[0])
        return
    with path.open("rb") as stream:
        while most > 0 and (piece := stream.read(min(BLOCK, most))):
            most -= len(piece)
            yield piece


def _member_sizes(path: Path, members: dict[str, str]) -> dict[str, int]:
    with open_zip(path) as bundle:
        known = {info.filename: info.file_size for info in bundle.infolist()}
    for member in members.values():
        if member not in known:
            raise UserError(f"{path} has no file {member}")
    return {split: known[members[split]] for split in SPLITS}


def _pieces_of_member(path: Path, member: str) -> Iterator[bytes]:
    with reading(path, member), zipfile.ZipFile(path) as bundle, bundle.open(member) as stream:
        while piece := stream.read(BLOCK):
            yield piece
