"""A temporary folder for work before it is renamed into place; one left by a killed process is removed by the next."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ABANDONED_SECONDS = 24 * 3600  # where the disk has no locks


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder in `parent` for a block, and remove those that killed processes left there under `prefix`.

    The block may rename the folder into place. The kernel knows whose process has ended: it drops the lock it
    held on its folder. Raises OSError as the disk does.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as gate:  # nobody looks between a folder and its lock
            _lock(gate, parent, fcntl.LOCK_EX)
            for left in parent.glob(f"{prefix}*"):
                _remove_if_left(left)
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            _lock(stack, folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder


def _lock(stack: contextlib.ExitStack, folder: Path, mode: int) -> bool | None:
    """Lock a folder until `stack` closes; False where another process has it, None where the disk has no locks."""
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
