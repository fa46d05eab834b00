"""Archives: unpacking them safely, and reading a tar's files one after the other without unpacking.

Nothing that an archive says is trusted: no member lands outside the target, links and devices are refused, and the
number and size of files are limited by what is really written, not by what the headers claim.
"""

import errno
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from replications.datasets.disk import alone, writing
from replications.datasets.litter import is_litter
from replications.errors import UserError
from replications.progress import progress

MOST_BYTES = 400 << 30  # the largest set of the registry is about 220 GB
MOST_FILES = 20_000_000
MOST_RATIO = 200  # of what is unpacked to the archive; text in a tar.xz comes to about 20
SMALL = 1 << 30  # bytes that any archive may unpack to
BLOCK = 1 << 20
# Exceptions of the libraries for a damaged or unusual archive; also OSError without errno.
DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, struct.error, ValueError, IndexError,
    OverflowError, RuntimeError,
)  # fmt: skip


class MemberStream:
    """A file in an archive; reading it raises UserError where the archive is damaged."""

    def __init__(self, stream: BinaryIO, archive: Path | str, name: str):
        self._stream, self._archive, self._name = stream, archive, name

    def read(self, size: int = -1) -> bytes:
        with reading(self._archive, self._name):
            return self._stream.read(size)


Member = tuple[str, MemberStream]


@contextmanager
def reading(archive: Path | str, member: str = "") -> Iterator[None]:
    """Turn what the libraries raise for a damaged archive into one line that names it, and the member."""
    where = f"{archive}: {shown(member)}" if member else f"{archive}"
    try:
        yield
    except NotImplementedError as error:
        raise UserError(f"{where} is packed in a way that cannot be read here ({error}): repack it") from error
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"cannot read {where}: {error.strerror}") from error
        what = str(error).partition("\n")[0] or type(error).__name__  # tarfile lists its attempts on further lines
        raise UserError(f"{where} is truncated or damaged ({what}): delete it and fetch it again") from error


def shown(name: str) -> str:
    """A member's name as a message shows it, on one line."""
    return name if name.isprintable() and name else repr(name)


class _Header(tarfile.TarInfo):
    """A header that is there and whole: tarfile takes a damaged one, or none, for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"at byte {tar.offset}: {error}") from error


def tar_files(archive: Path, stream: BinaryIO | None = None, name: str = "") -> Iterator[Member]:
    """Yield (name, readable stream) of each regular file of a tar (plain, gz, xz or bz2), in its own order.

    Folders are passed over. `stream` is read instead of the file: a tar within `archive`, under `name`. Raises
    UserError for a link, a device, or a damaged archive.
    """
    where = f"{archive}: {shown(name)}" if name else archive
    with reading(where), tarfile.open(archive if stream is None else None, fileobj=stream, tarinfo=_Header) as tar:
        for member in tar:
            tar.members = []  # otherwise it keeps every header it has seen
            if member.isdir():
                continue
            if not member.isreg():
                raise UserError(f"{where}: {shown(member.name)} is a link or a device: refused")
            yield member.name, MemberStream(tar.extractfile(member), where, member.name)


def open_zip(archive: Path) -> zipfile.ZipFile:
    """Open a zip; raises UserError where it is damaged, or holds two files of one name."""
    with reading(archive):
        bundle = zipfile.ZipFile(archive)
    seen = set()
    for name in bundle.namelist():
        if name in seen:
            raise UserError(f"{archive} holds {shown(name)} twice: refused")
        seen.add(name)
    return bundle


def read_member(bundle: zipfile.ZipFile, name: str) -> bytes:
    """Return a file of a zip; raises UserError where it is damaged, encrypted, or packed in an unknown way."""
    with reading(bundle.filename, name):
        return bundle.read(name)


def _zip_files(archive: Path) -> Iterator[Member]:
    with open_zip(archive) as bundle:
        for member in bundle.infolist():
            name = member.filename
            if name.endswith("/"):
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise UserError(f"{archive}: {shown(name)} is a link or a device: refused")
            if member.flag_bits & 1:
                raise UserError(f"{archive}: {shown(name)} is encrypted")
            with reading(archive, name):
                stream = bundle.open(member)
            with stream:
                yield name, MemberStream(stream, archive, name)


def extract(archive: Path, target: Path, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES) -> Path:
    """Unpack a tar or zip into the folder `target`, which appears whole or not at all, and return it.

    Where everything in the archive lies in one folder, that folder becomes `target` (what file managers leave beside
    it does not count). A `target` that is there is left as it is. Raises UserError for a member outside the target, a
    link or device, too many or too large files, a damaged archive, or a full disk.
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
                inside = [path for path in room.iterdir() if not is_litter(path.name)]
                only = inside[0] if len(inside) == 1 and inside[0].is_dir() else room
                os.replace(only, target)
        finally:
            shutil.rmtree(room, ignore_errors=True)
    return target


def _unpack(archive: Path, room: Path, most_bytes: int, most_files: int) -> None:
    most_bytes = min(most_bytes, max(SMALL, MOST_RATIO * archive.stat().st_size))
    with reading(archive):  # a tar first: one that ends with a zip looks like a zip
        is_zip = not tarfile.is_tarfile(archive) and zipfile.is_zipfile(archive)
    members = _zip_files(archive) if is_zip else tar_files(archive)
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
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise UserError(f"{archive} holds {shown(name)} twice, or as file and folder: refused") from None
            except OSError as error:
                if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
                    raise  # of the disk
                raise UserError(f"{archive}: {shown(name)[:100]} cannot be a file here: {error.strerror}") from None
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
    if not path.parts:
        raise UserError(f"{archive} holds a file whose name is {name!r}: refused")
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
        raise UserError(f"{archive}: {name!r} would be outside the target folder: refused")
    return path
