"""Opening a prepared set: its memory-mapped arrays and metadata."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from replications.datasets.registry import data_fingerprint
from replications.datasets.unchanged import first_changed
from replications.errors import UserError, disk_error

if TYPE_CHECKING:  # planning needs only the paths of sets, without importing numpy
    import numpy as np

MANIFEST = "set.json"
ArrayName = Annotated[str, Field(pattern=r"^[^/\\\x00.][^/\\\x00]*$")]


class Form(BaseModel):
    """What `MANIFEST` says of an array."""

    shape: list[Annotated[int, Field(ge=0)]]
    dtype: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """What must be in `MANIFEST` for a set to be opened."""

    key: str
    title: str
    kind: str
    fingerprint: str
    facts: dict[str, Any]
    arrays: dict[ArrayName, Form] = Field(min_length=1)
    files: dict[str, Any]


class Damaged(UserError):
    """A prepared set that is not there, or is not what was prepared: preparing it again puts it right."""


@dataclass(frozen=True)
class PreparedSet:
    """A set's read-only arrays by name. `meta` is ``set.json``: title, kind, licence, files, counts, checksums."""

    key: str
    path: Path
    fingerprint: str
    arrays: "dict[str, np.memmap]"
    meta: dict[str, Any]


def set_path(set_key: str, data_root: Path) -> Path:
    """Path of the set in the version that the present registry and code make."""
    return Path(data_root) / "prepared" / f"{set_key}-{data_fingerprint(set_key)[:12]}"


def open_set(set_key: str, data_root: Path, *, anew: bool = False) -> PreparedSet:
    """Map a prepared set's arrays; raises UserError that says how to prepare it, where it is not there or damaged.

    The arrays' bytes are held against their sha256 where that has not been done since they last changed, which reads
    them once (`anew`: in any case).
    """
    path = set_path(set_key, data_root)
    meta = _manifest(set_key, path)
    arrays = {}
    for name, form in meta["arrays"].items():
        arrays[name] = _map(path / f"{name}.npy", set_key)
        if list(arrays[name].shape) != form["shape"] or str(arrays[name].dtype) != form["dtype"]:
            raise _damaged(path / f"{name}.npy", f"is not what {MANIFEST} says", set_key)
    changed = first_changed(path, {name: form["sha256"] for name, form in meta["arrays"].items()}, anew=anew)
    if changed is not None:
        raise _damaged(changed, "has changed since it was prepared (its sha256 is another)", set_key)
    return PreparedSet(set_key, path, meta["fingerprint"], arrays, meta)


def _manifest(set_key: str, path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        meta = json.loads(file.read_bytes())
        Manifest.model_validate(meta)
    except FileNotFoundError:
        others = sorted(path.parent.glob(f"{set_key}-{'?' * 12}"))
        outdated = f" (only in an outdated version, {others[0].name})" if others and others != [path] else ""
        raise Damaged(
            f"data set '{set_key}' is not prepared below {path.parent.parent}{outdated}: "
            f"make it with 'python -m replications fetch {set_key}'"
        ) from None
    except IsADirectoryError:
        raise _damaged(file, "is a folder", set_key) from None
    except OSError as error:
        raise disk_error(error, "read", file) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise _damaged(file, f"is of another form ({where}: {first['msg']})", set_key) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"is damaged ({' '.join(str(error).split())})", set_key) from None
    if meta.get("sha256") not in (None, manifest_digest(meta)):
        raise _damaged(file, "has changed since it was written (its sha256 is another)", set_key)
    if meta["key"] != set_key or path.name != f"{set_key}-{meta['fingerprint'][:12]}":
        raise _damaged(file, f"is of another set ({meta['key']}, {meta['fingerprint'][:12]})", set_key)
    return meta


def manifest_digest(meta: dict[str, Any]) -> str:
    """The sha256 of all that a manifest says, but for the sha256 itself."""
    text = json.dumps({key: value for key, value in meta.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _map(file: Path, set_key: str) -> "np.memmap":
    import numpy as np

    try:
        return np.lib.format.open_memmap(file, mode="r")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise _damaged(file, "is missing", set_key) from None
    except OSError as error:
        raise disk_error(error, "read", file) from error
    except Exception as error:  # numpy raises many kinds for a header that is none
        raise _damaged(file, f"is damaged ({' '.join(str(error).split())[:200]})", set_key) from error


def _damaged(file: Path, what: str, set_key: str) -> Damaged:
    return Damaged(f"{file} {what}: prepare it again with 'python -m replications fetch {set_key}'")
