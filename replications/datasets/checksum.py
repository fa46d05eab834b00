"""Checking a file, or a folder that a person has unpacked, against the registry."""

import hashlib
import zipfile
import zlib
from pathlib import Path

from replications.datasets.registry import Variant
from replications.errors import on_disk
from replications.progress import progress

BLOCK = 1 << 20


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's checksum in hex, with a progress bar; raises UserError where it cannot be read."""
    value = hashlib.new(algorithm)
    with (
        on_disk("read", path),
        path.open("rb") as stream,
        progress(f"check {path.name}", path.stat().st_size, "B") as counter,
    ):
        while block := stream.read(BLOCK):
            value.update(block)
            counter.advance(len(block))
    return value.hexdigest()


def is_whole(archive: Path) -> bool:
    """Whether a zip file's parts have their checksums; true where there is no file. Raises UserError: not readable."""
    with on_disk("read", archive):
        try:
            with zipfile.ZipFile(archive) as parts:
                return parts.testzip() is None
        except FileNotFoundError:
            return True
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
            return False


def fault(path: Path, variant: Variant) -> str | None:
    """Say what is wrong with `path` as that variant, or None where nothing is."""
    if variant.contains:
        missing = [name for name in variant.contains if not (path / name).exists()]
        return f"lacks {', '.join(missing)}" if missing else None
    if not path.is_file():
        return "is not a file"
    size = path.stat().st_size
    if variant.bytes is not None and size != variant.bytes:
        return f"has {size} bytes instead of {variant.bytes}"
    if variant.checksum is None:
        return None
    algorithm, expected = variant.checksum
    found = digest(path, algorithm)
    return None if found == expected else f"has the {algorithm} {found} instead of {expected}"
