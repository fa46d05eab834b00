"""Embedded text: the nouns of WordNet with their definitions, from two files that the locked timm package carries.

Lines read ``word, word: definition``. Their order is that of a hash of the synset, so neighbours are not related and
all splits are alike. The files' checksums are options of the set: another version of the files is another set.
"""

import hashlib
import importlib.util
import itertools
from pathlib import Path

from replications.datasets.text.files import write_text
from replications.errors import UserError

FOLDER = Path("data", "_info")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``text`` and ``splits``; `options` has ``files`` (name -> sha256), ``validation`` and ``test`` fractions.

    Raises UserError where the files are not there or not those of the lock.
    """
    folder = _package() / FOLDER
    lemma, definition = (_read(folder / name, checksum) for name, checksum in options["files"].items())
    if list(lemma) != list(definition):
        raise UserError(f"the word lists in {folder} do not belong together: reinstall the locked timm")
    synsets = sorted(lemma, key=lambda name: hashlib.sha256(name.encode()).digest())
    lines = [lemma[name] + b": " + definition[name] + b"\n" for name in synsets]
    test, validation = (int(len(lines) * options[name]) for name in ("test", "validation"))
    bounds = [0, len(lines) - validation - test, len(lines) - test, len(lines)]
    parts = [b"".join(lines[start:stop]) for start, stop in itertools.pairwise(bounds)]
    return {"lines": len(lines), **write_text(target, parts)}


def _package() -> Path:
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the embedded text comes with timm, which is not installed: install envs/requirements.txt")
    return Path(next(iter(spec.submodule_search_locations)))


def _read(path: Path, checksum: str) -> dict[str, bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; install the timm of envs/requirements.txt") from error
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        raise UserError(
            f"{path} is another text (sha256 {found[:12]}..., expected {checksum[:12]}...): "
            "install the timm of envs/requirements.txt"
        )
    entries = (line.partition(b"\t") for line in content.splitlines())
    return {name.decode(): text for name, _, text in entries}
