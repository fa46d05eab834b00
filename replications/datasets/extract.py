"""Archives: unpacking them safely, and reading a tar's files one after the other without unpacking.

Nothing that an archive says is trusted: no member lands outside the target, links and devices are refused, and the
number and size of files are limited by what is really written, not by what the headers claim.
"""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from replications.datasets.disk import alone, writing
from replications.errors import UserError
from replications.progress import progress

MOST_BYTES = 400 << 30  # the largest set of the registry is about 220 GB
MOST_FILES = 20_000_000
BLOCK = 1 << 20
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError)  # and OSError without errno


class MemberStream:
    """A file in an archive; reading it raises UserError where the archive is damaged."""

    def __init__(self, stream: BinaryIO, archive: Path):
        self._stream, self._archive = stream, archive

    def read(self, size: int = -1) -> bytes:
        with reading(self._archive):
            return self._stream.read(size)


Member = tuple[str, MemberStream]


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Turn what the libraries raise for a damaged archive into one line that names it."""
    try:
        yield
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"cannot read {archive}: {error.strerror}") from error
        what = str(error).partition("\n")[0] or type(error).__name__  # tarfile lists its attempts on further lines
        raise UserError(f"{archive} is truncated or damaged ({what}): delete it and fetch it again") from error


def tar_files(archive: Path) -> Iterator[Member]:
    """Yield (name, readable stream) of each regular file of a tar (plain, gz, xz or bz2), in its own order.

    Folders are passed over. Raises UserError for a link, a device, or a damaged archive.
    """
    with reading(archive), tarfile.open(archive) as tar:
        for member in tar:
            tar.members = []  # otherwise it keeps every header it has seen
            if member.isdir():
                continue
            if not member.isreg():
                raise UserError(f"{archive}: {member.name} is a link or a device: refused")
            yield member.name, MemberStream(tar.extractfile(member), archive)


def _zip_files(archive: Path) -> Iterator[Member]:
    with reading(archive), zipfile.ZipFile(archive) as bundle:
        for member in bundle.infolist():
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise UserError(f"{archive}: {member.filename} is a link or a device: refused")
            if member.flag_bits & 1:
                raise UserError(f"{archive}: {member.filename} is encrypted")
            with bundle.open(member) as stream:
                yield member.filename, MemberStream(stream, archive)


def extract(archive: Path, target: Path, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES) -> Path:
    """Unpack a tar or zip into the folder `target`, which appears whole or not at all, and return it.

    Where everything in the archive lies in one folder, that folder becomes `target`. A `target` that is there is left
    as it is. Raises UserError for a member outside the target, a link or device, too many or too large files, a
    damaged archive, or a full disk.
    """
    archive, target = Path(archive), Path(target)
    with alone(target, f"unpacks {archive.name}"):
        if target.exists():
            return target
        room = target.with_name(f".{target.name}.unpacking")
        shutil.rmtree(room, ignore_errors=True)  # left by a process that was killed
        try:
            with writing(room):
                room.mkdir()
                _unpack(archive, room, most_bytes, most_files)
                inside = list(room.iterdir())
                only = inside[0] if len(inside) == 1 and inside[0].is_dir() else room
                os.replace(only, target)
        finally:
            shutil.rmtree(room, ignore_errors=True)
    return target


def _unpack(archive: Path, room: Path, most_bytes: int, most_files: int) -> None:
    with reading(archive):
        members = _zip_files(archive) if zipfile.is_zipfile(archive) else tar_files(archive)
    files = written = 0
    with progress(f"unpack {archive.name}", unit="B") as counter:
        for name, stream in members:
            path = room / _safe(name, archive)
            files += 1
            if files > most_files:
                raise UserError(f"{archive} holds more than {most_files} files: refused")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                out = path.open("xb")
            except (FileExistsError, NotADirectoryError):
                raise UserError(f"{archive} holds {name} twice, or as file and folder: refused") from None
            with out:
                while block := stream.read(BLOCK):
                    written += len(block)
                    if written > most_bytes:
                        raise UserError(f"{archive} unpacks to more than {most_bytes} bytes: refused")
                    out.write(block)
                    counter.advance(len(block))


def _safe(name: str, archive: Path) -> PurePosixPath:
    """Return a member's name as a relative path that stays inside; raises UserError where it would not."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
        raise UserError(f"{archive}: {name!r} would land outside the target folder: refused")
    return path
