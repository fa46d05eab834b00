"""One snakemake per folder, without Snakemake's stale locks: the kernel releases this one when its process ends."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from replications.errors import UserError

if TYPE_CHECKING:
    from filelock import FileLock


def hold_folder(folder: Path) -> "FileLock":
    """Take the lock of a working folder for the life of this process.

    Raises UserError, naming the process, if another one has it.
    """
    from filelock import FileLock, Timeout

    note = folder / "replications.pid"
    lock = FileLock(folder / "replications.lock")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = note.read_text(encoding="utf-8").strip() if note.exists() else "unknown"
        raise UserError(
            f"another snakemake (process {holder}) is running in {folder.parent}: wait for it, stop it, "
            "or use another folder with --directory"
        ) from None
    note.write_text(f"{os.getpid()}\n", encoding="utf-8")
    return lock
