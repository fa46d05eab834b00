"""Temporary folders that are renamed into place when complete; leftovers of killed processes are removed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ABANDONED_SECONDS = 24 * 3600  # age of leftovers to remove on file systems without locks


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a temporary folder in `parent` for a block, and remove those of killed processes with the same `prefix`.

    The block may rename the folder into place. Each process holds a lock on its folder, which the kernel releases
    when the process ends. Raises OSError as the file system does.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as gate:  # no other process can see the folder without its lock
            _lock(gate, parent, fcntl.LOCK_EX)
            for left in parent.glob(f"{prefix}*"):
                _remove_if_left(left)
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            _lock(stack, folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder


def _lock(stack: contextlib.ExitStack, folder: Path, mode: int) -> bool | None:
    """Lock a folder until `stack` closes; False if another process has it, None if the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, mode)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        if folder.is_symlink() or not folder.is_dir():
            return
        free = _lock(stack, folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if free or (free is None and time.time() - folder.stat().st_mtime > ABANDONED_SECONDS):
            shutil.rmtree(folder, ignore_errors=True)
