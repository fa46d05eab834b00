"""Files that file managers and network storage create: never a class, an identity or an image."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

NAMES = {"__MACOSX", "Thumbs.db", "desktop.ini", "lost+found", "System Volume Information", "#recycle", "$RECYCLE.BIN"}
PICTURES = (".jpeg", ".jpg", ".png")


def is_litter(path: str | PurePosixPath) -> bool:
    """Whether a part of a relative path is such a thing: .DS_Store, ._0001.jpg, @eaDir, __MACOSX, #recycle, ..."""
    return any(part[0] in ".@" or part in NAMES for part in PurePosixPath(path).parts if part != "..")


def entries(folder: Path) -> list[Path]:
    """Return what a person put into a folder, in the order of the names."""
    return sorted(path for path in folder.iterdir() if not is_litter(path.name))


def pictures(paths: Iterable[Path]) -> list[Path]:
    """Return those of `paths` that are files of pictures."""
    return [path for path in paths if path.suffix.lower() in PICTURES and path.is_file()]
