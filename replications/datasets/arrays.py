"""Opening a prepared set: memory-mapped arrays, and what is known of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replications.datasets.registry import data_fingerprint
from replications.errors import UserError

MANIFEST = "set.json"


@dataclass(frozen=True)
class PreparedSet:
    """A set's read-only arrays by name. `meta` is ``set.json``: title, kind, licence, files, counts, checksums."""

    key: str
    path: Path
    fingerprint: str
    arrays: dict[str, np.memmap]
    meta: dict[str, Any]


def set_path(set_key: str, data_root: Path) -> Path:
    """Where the set lies, or will lie, in the version that the present registry and code make."""
    return Path(data_root) / "prepared" / f"{set_key}-{data_fingerprint(set_key)[:12]}"


def open_set(set_key: str, data_root: Path) -> PreparedSet:
    """Map a prepared set's arrays; raises UserError that says how to prepare it, where it is not there or damaged."""
    path = set_path(set_key, data_root)
    try:
        meta = json.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError:
        others = sorted(path.parent.glob(f"{set_key}-{'?' * 12}"))
        outdated = f" (only in an outdated version, {others[0].name})" if others else ""
        raise UserError(
            f"data set '{set_key}' is not prepared below {data_root}{outdated}: "
            f"make it with 'python -m replications fetch {set_key}'"
        ) from None
    except ValueError as error:
        raise UserError(f"{path / MANIFEST} is damaged ({error}): delete {path} and prepare it again") from error
    arrays = {}
    for name, form in meta["arrays"].items():
        file = path / f"{name}.npy"
        try:
            arrays[name] = np.load(file, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{file} is damaged ({error}): delete {path} and prepare it again") from error
        if list(arrays[name].shape) != form["shape"] or arrays[name].dtype != form["dtype"]:
            raise UserError(f"{file} is not what {MANIFEST} says: delete {path} and prepare it again")
    return PreparedSet(set_key, path, meta["fingerprint"], arrays, meta)
