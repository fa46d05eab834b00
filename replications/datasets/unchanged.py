"""Whether prepared arrays are still those that were prepared: their sha256, read once for each state of a file.

What was found right is noted beside the set, with what the file system says of the file; while that stays the same,
opening the set does not read it again. Where nothing can be written (a shared, read-only folder) a process notes it for
itself.
"""

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from replications.datasets.checksum import digest
from replications.errors import UserError, on_disk
from replications.records import write_atomic

SETTLED_NS = 50_000_000  # a file changed so shortly before could change again within the clock's tick
_noted: dict[Path, dict[str, list]] = {}


def note_path(folder: Path) -> Path:
    """Where the checks of a set's folder are noted."""
    return folder.with_name(f".{folder.name}.checked.json")


def first_changed(folder: Path, digests: Mapping[str, str], *, anew: bool = False) -> Path | None:
    """Return the first array file whose bytes do not have the sha256 in `digests` (by array name), or None.

    `anew`: read all of them, whatever is noted. Raises UserError for a file that cannot be read.
    """
    noted = {} if anew else _noted.get(folder) or _read(note_path(folder))
    states = {name: state_of(folder / f"{name}.npy", sha256) for name, sha256 in digests.items()}
    unread = [name for name, state in states.items() if noted.get(name) != state]
    for name in unread:
        if digest(folder / f"{name}.npy") != digests[name]:
            return folder / f"{name}.npy"
    if unread:
        note(folder, states)
    return None


def note(folder: Path, states: Mapping[str, list]) -> None:
    """Note the states of files in which they were read and right, unless they are too new to tell or have passed."""
    settled = time.time_ns() - SETTLED_NS
    _noted[folder] = {
        name: state
        for name, state in states.items()
        if state == state_of(folder / f"{name}.npy", state[0]) and max(state[2:4]) < settled
    }
    with contextlib.suppress(UserError):  # nothing can be written: this process knows
        write_atomic(note_path(folder), json.dumps(_noted[folder], sort_keys=True).encode() + b"\n")


def state_of(path: Path, sha256: str) -> list:
    """What changes with a file's bytes: mtime, which programs can set back, and ctime, which they cannot."""
    with on_disk("read", path):
        status = path.stat()
    return [sha256, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(path: Path) -> dict[str, list]:
    try:
        noted = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}
