"""The local disk: one process at a time on a file, and a clear message when it is full."""

import contextlib
import errno
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from replications.errors import UserError, disk_error, on_disk


@contextlib.contextmanager
def alone(path: Path, doing: str) -> Iterator[None]:
    """Be the only process at `path` (a lock file beside it); where another one is at it, say so and wait."""
    with on_disk("write in", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that {doing}", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk below `path` into one line; what was finished stays, so the work can be resumed."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(no_space(path)) from error
        raise disk_error(error, "read or write", path) from error


def require_space(path: Path, needed: int) -> None:
    """Raise UserError where fewer than `needed` bytes are free for `path`, whose folder exists."""
    if needed > shutil.disk_usage(path.parent).free:
        raise UserError(no_space(path, needed))


def no_space(path: Path, needed: int = 0) -> str:
    """The line for a full disk."""
    free = shutil.disk_usage(path.parent).free
    need = f"{needed / 1e6:.0f} MB more are needed and " if needed else ""
    return (
        f"no space left for {path}: {need}{free / 1e6:.0f} MB are free; free some space and start again "
        "(finished work is kept)"
    )
