"""The records of a publication in one file: a line of JSON for each, compressed by xz.

A tier's folder has a file for each record; both are read in the same way. The single file can also be read by
``pandas.read_json(path, lines=True)`` and ``xzcat``, and ``cat`` joins several.
"""

import contextlib
import json
import lzma
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from replications.errors import UserError
from replications.records import read_bytes, run_path, throughput_path

ARCHIVE = "records.jsonl.xz"


def record_files(results: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield name and reader of each record below `results`, in the order of names.

    The name is the path that a record has, or would have, below `results`. The reader returns the JSON text and raises
    UserError where it cannot be read; an archive is read at once.
    """
    results = Path(results)
    if (results / ARCHIVE).exists():
        for name, line in sorted(_archived(results / ARCHIVE).items()):
            yield name, partial(bytes, line)
        return
    for pattern in ("runs/*/*/seed*/run.json", "throughput/*/*.json"):
        for path in sorted(results.glob(pattern)):
            yield path.relative_to(results).as_posix(), partial(read_bytes, path)


def _archived(path: Path) -> dict[str, bytes]:
    """Return the lines of an archive by the names of their records."""
    try:
        lines = lzma.decompress(read_bytes(path) or b"nothing").splitlines()
        found = {_name(line): line for line in lines}
    except (lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): restore it") from None
    if len(found) < len(lines):
        raise UserError(f"{path} holds a record twice: join archives of different runs only")
    return found


def _name(text: bytes) -> str:
    """Return the path that a record says it has."""
    record = json.loads(text)
    if record["kind"] == "run":
        spec = record["spec"]
        return run_path(Path(), spec["paper"], spec["method"], spec["seed"]).as_posix()
    return throughput_path(Path(), record["paper"], record["method"]).as_posix()


def pack(results: Path) -> bytes:
    """Return the archive of the records below a folder: the same records give the same bytes.

    Files that no report counts are left out: those that are not records, or records of another run than the path.
    """
    lines = []
    for name, read in record_files(results):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if _name(text := read()) == name:
                lines.append(json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) + "\n")
    return lzma.compress("".join(sorted(lines)).encode(), preset=9 | lzma.PRESET_EXTREME)
