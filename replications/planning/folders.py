"""The folder knobs: validation of the text as written, and a form of the name that Snakemake accepts.

YAML and Snakemake would parse 2026_11_27 as a number and 2026-11-27 as a date; folder names stay text.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import yaml

from replications.errors import UserError

FOLDERS = ("data_mirror", "data_root", "work", "results")
NULL = "tag:yaml.org,2002:null"
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# In a file's name Snakemake reads {x} as a wildcard and <x> as a variable, and it warns of a space at the front; an
# option is what begins with a dash, and a tilde is home.
TAKEN_FOR_MORE = re.compile(r"[{}<>]|^[\s~-]")
LINKS = Path(".snakemake") / "folders"


class _AsWritten(yaml.SafeLoader):
    """YAML whose values stay text; only an unquoted null is None."""


_AsWritten.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == NULL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def as_written(files: Iterable[Path], assignments: Iterable[str] = ()) -> dict[str, str | None]:
    """Return the folder knobs that configuration files and then words like ``results=x`` give, as text.

    If a knob is given twice, the later value counts. Values that are not text (such as lists) are left out.
    """
    found = {}
    for path in files:
        with suppress(OSError, ValueError, yaml.YAMLError):  # reported when the whole file is read
            content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_AsWritten)
            found.update({key: content[key] for key in FOLDERS if key in content})
    for key, _, text in (word.partition("=") for word in assignments):
        if key in FOLDERS:
            quoted = re.fullmatch(r"""(["'])([^"']*)\1""", text)
            found[key] = quoted[2] if quoted else text
    if str(found.get("data_mirror")).lower() in ("null", "none", ""):
        found["data_mirror"] = None
    return {key: value for key, value in found.items() if value is None or isinstance(value, str)}


def folder_name(knob: str, text: str, there: bool = False) -> str:
    """Return a folder's name with ``~`` expanded, as pathlib writes it.

    Raises UserError, naming the knob, if the name has unprintable characters, a file is in the way, or a folder that
    must exist (`there`) does not.
    """
    if not text or UNPRINTABLE.search(text):
        raise UserError(f"{knob}={text!a}: give a folder's name in printable characters")
    path = Path(os.path.expanduser(text))
    for parent in (path, *path.parents):
        try:
            if not stat.S_ISDIR(parent.stat().st_mode):
                raise UserError(f"{knob}={text}: {parent} is a file (give another folder, or move the file away)")
            break
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"{knob}={text[:80]}: {error.strerror} (give another folder)") from None
    if there and not path.exists():
        raise UserError(f"{knob}={text}: there is no such folder (correct it, or leave it out)")
    return str(path)


def name_for_snakemake(folder: str) -> str:
    """Return the folder's name, or that of a symbolic link if Snakemake or a shell would interpret its characters."""
    if not TAKEN_FOR_MORE.search(folder):
        return folder
    link = LINKS / hashlib.sha256(os.path.abspath(folder).encode()).hexdigest()[:16]
    link.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        link.symlink_to(os.path.abspath(folder))
    return str(link)
