"""Making a prepared set: fetch its sources, let its preparer write the arrays, and publish them only when complete."""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np

from replications.datasets.arrays import MANIFEST, Damaged, manifest_digest, open_set, set_path
from replications.datasets.checksum import digest
from replications.datasets.disk import alone, require_space, writing
from replications.datasets.download import fetch
from replications.datasets.registry import data_fingerprint, find_set
from replications.datasets.rows import require_finite
from replications.datasets.unchanged import note, state_of
from replications.records import write_atomic

ROWS_A_LOOK = 4096  # when a whole array is looked through


def fetch_sources(set_key: str, data_root: Path, mirror: Path | None = None) -> dict[str, Path]:
    """Fetch and check the sources of a set: role -> file or folder. Raises UserError as `download.fetch`."""
    return {role: fetch(source, data_root, mirror) for role, source in find_set(set_key).sources.items()}


def prepare(set_key: str, data_root: Path, mirror: Path | None = None, workers: int | None = None) -> Path:
    """Prepare a set unless it is, and return its folder ``<data_root>/prepared/<key>-<fingerprint>``.

    It is built in a hidden folder beside it, which a killed process leaves and the next one continues, and renamed
    when complete. Where another process prepares the same set, its end is waited for. A set that is there is read
    whole and held against its checksums; what has changed or is damaged is prepared again. `workers`: processes; None
    for one a core. Raises UserError: a source that is not to be had, a damaged file, a full disk, a set that is there
    but cannot be read (it is left as it is).
    """
    entry = find_set(set_key)
    final = set_path(set_key, data_root)
    if final.is_dir() and _fault(set_key, data_root) is None:
        return final
    with alone(final, f"prepares '{set_key}'"):
        if final.exists():
            fault = _fault(set_key, data_root)
            if fault is None:
                return final
            print(f"preparing '{set_key}' again: {fault}", file=sys.stderr, flush=True)
        files = fetch_sources(set_key, data_root, mirror)
        building = final.with_name(f".{final.name}.building")
        with writing(building):
            _continue_or_begin(building, files)
            present = sum(path.stat().st_blocks * 512 for path in building.iterdir())
            require_space(building, entry.prepared_bytes - present)
            module = importlib.import_module(f"replications.datasets.{entry.preparer}")
            facts = module.prepare(building, dict(entry.options), files, workers or _cores())
            manifest = {
                "key": set_key,
                "title": entry.title,
                "kind": entry.kind,
                "note": entry.note,
                "fingerprint": data_fingerprint(set_key),
                "facts": facts,
                "arrays": {path.stem: _form(path) for path in sorted(building.glob("*.npy"))},
                "files": {role: _origin(path) for role, path in files.items()},
            }
            for leftover in building.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                elif leftover.suffix != ".npy":
                    leftover.unlink()
            manifest = json.loads(json.dumps(manifest))  # as it will be read
            manifest["sha256"] = manifest_digest(manifest)
            write_atomic(building / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
            if final.exists():  # damaged, or it would have been complete
                shutil.rmtree(final)
            os.replace(building, final)
            forms = manifest["arrays"].items()
            note(final, {name: state_of(final / f"{name}.npy", form["sha256"]) for name, form in forms})
    pattern = f"{set_key}-{'?' * 12}"
    for other in [*final.parent.glob(pattern), *final.parent.glob(f".{pattern}.building")]:
        if other != final:
            print(f"note: {other} is an outdated version: delete it when nothing needs it", file=sys.stderr)
    return final


def _continue_or_begin(building: Path, files: dict[str, Path]) -> None:
    """Make the folder; empty it where what it holds was made from other files (a source may have no checksum)."""
    made_from = {}
    for role, path in files.items():
        for part in [path, *sorted(path.iterdir())] if path.is_dir() else [path]:
            if part == path or part.is_file():
                status = part.stat()
                made_from[f"{role}/{part.name}"] = [status.st_size, status.st_mtime_ns]
    note = building / "sources.json"
    text = json.dumps(made_from, sort_keys=True)
    if building.exists() and not (note.exists() and note.read_text() == text):
        shutil.rmtree(building)
    building.mkdir(exist_ok=True)
    note.write_text(text)


def _fault(set_key: str, data_root: Path) -> Damaged | None:
    """Read all of a set and say what is wrong with it. Raises UserError where it cannot be read: it may be good."""
    try:
        open_set(set_key, data_root, anew=True)
    except Damaged as fault:
        return fault
    return None


def _form(path: Path) -> dict:
    """Shape, type and checksum of an array; its bytes reach the disk before the set gets its name.

    Raises UserError for NaN or infinity that the preparer did not reject.
    """
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    array = np.load(path, mmap_mode="r")
    for start in range(0, len(array) if array.ndim and array.dtype.kind == "f" else 0, ROWS_A_LOOK):
        require_finite(array[start : start + ROWS_A_LOOK], path.stem, first=start)
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest(path)}


def _origin(path: Path) -> dict:
    """Name and checksum of what the set was made from; of a folder the name."""
    return {"name": path.name} | ({"sha256": digest(path)} if path.is_file() else {})


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
