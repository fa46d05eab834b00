"""The registry of data: sources (what is downloaded) and sets (what is prepared from them).

Both are read from ``datasets/registry/*.yaml``. A source has one content and one or more *variants*: the official
archive, the same images in another archive, an unpacked folder. A variant's `path` is its place below a mirror
directory and below ``<data_root>/downloads``, which has the same layout, so one machine's downloads are another's
mirror.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from replications.catalogue import parse, read_yaml
from replications.errors import UserError, nearest
from replications.fingerprint import code_fingerprint
from replications.spec import Strict

ROOM = Path(__file__).parent
REGISTRY = ROOM / "registry"

# What these do cannot change a prepared array: version, validation, messages to a person, progress bars, locks.
NOT_IN_THE_DATA = (
    "replications",
    "replications.parsing",
    "replications.errors",
    "replications.progress",
    "replications.spec",
    "replications.datasets.disk",
)


class Variant(Strict):
    """One form of a source's content: a file, or a folder that a person has unpacked."""

    path: str = Field(description="its path below a mirror directory or <data_root>/downloads")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    md5: str | None = Field(None, pattern="^[0-9a-f]{32}$", description="where the owner publishes nothing better")
    bytes: int | None = Field(None, gt=0, description="exact size; a file of another size is refused unread")
    about_bytes: int | None = Field(None, gt=0, description="rough size, where the exact one is not known")
    urls: tuple[str, ...] = Field((), description="tried in order: the owner's first, then known mirrors")
    contains: tuple[str, ...] = Field((), description="the variant is a folder, and these files are in it")
    unpack: str | None = Field(None, description="folder, beside the archive, into which it is unpacked for use")

    @field_validator("path", "unpack")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        if value is not None and (value.startswith("/") or ".." in value.split("/")):
            raise ValueError(f"'{value}' must be a relative path without '..'")
        return value

    @model_validator(mode="after")
    def _checked(self) -> "Variant":
        if self.urls and not (self.sha256 or self.md5):
            raise ValueError(f"{self.path}: a URL needs a sha256 or md5")
        if self.contains and (self.urls or self.sha256 or self.md5 or self.unpack):
            raise ValueError(f"{self.path}: a folder has no checksum, URL or unpacking")
        return self

    @property
    def size(self) -> int | None:
        return self.bytes or self.about_bytes

    @property
    def checksum(self) -> tuple[str, str] | None:
        """('sha256' or 'md5', hex digits), the stronger where both are known."""
        if self.sha256:
            return "sha256", self.sha256
        return ("md5", self.md5) if self.md5 else None


class Source(Strict):
    """A file to download or, if `gated`, to be put in place by the user."""

    title: str
    homepage: str | None = None
    licence: str
    citation: str = Field("", description="BibTeX; empty where it is part of another source")
    gated: str | None = Field(None, description="what a person must do who wants it: one sentence")
    variants: tuple[Variant, ...] = Field(min_length=1, description="the owner's own form first")

    @property
    def identity(self) -> str:
        """The content's part of a fingerprint; equal for all variants."""
        official = self.variants[0]
        return official.md5 or official.sha256 or official.path


class PreparedSetEntry(Strict):
    """A set of arrays: ``replications.datasets.<preparer>.prepare`` makes it from its sources."""

    title: str
    kind: Literal["procedural", "embedded", "public", "gated"]
    preparer: str = Field(description="module of this room, with dots: faces.lfw")
    options: dict[str, Any] = Field({}, description="handed to the preparer")
    sources: dict[str, str] = Field({}, description="role, as the preparer calls it -> source")
    prepared_bytes: int = Field(gt=0, description="rough size of the arrays on disk")
    licence: str = Field("", description="of a set without sources")
    note: str = Field("", description="what a reader of its numbers must know")


class Registry(Strict):
    sources: dict[str, Source] = Field({})
    sets: dict[str, PreparedSetEntry] = Field({})


@functools.cache
def load(folder: Path = REGISTRY) -> Registry:
    """Return all sources and sets; raises UserError for an unknown key or source, or a name given twice."""
    merged: dict[str, dict[str, Any]] = {"sources": {}, "sets": {}}
    for path in sorted(Path(folder).glob("*.yaml")):
        part = parse(Registry, read_yaml(path) or {}, f"datasets/registry/{path.name}")
        for kind, entries in merged.items():
            for key, entry in getattr(part, kind).items():
                if key in entries:
                    raise UserError(f"datasets/registry/{path.name}: {kind}.{key} is already in another file")
                entries[key] = entry
    for key, entry in merged["sets"].items():
        for source in entry.sources.values():
            if source not in merged["sources"]:
                raise UserError(f"data set '{key}': unknown source '{source}'{nearest(source, merged['sources'])}")
    return Registry(**merged)


def find_set(key: str) -> PreparedSetEntry:
    """Return a set by key; raises UserError that names the nearest one."""
    sets = load().sets
    if key not in sets:
        raise UserError(f"unknown data set '{key}'{nearest(key, sets)}")
    return sets[key]


def find_source(key: str) -> Source:
    """Return a source by key; raises UserError that names the nearest one."""
    sources = load().sources
    if key not in sources:
        raise UserError(f"unknown data source '{key}'{nearest(key, sources)}")
    return sources[key]


def data_fingerprint(set_key: str) -> str:
    """Return the sha256 (hex) of what decides a set's arrays: its entry and the code that prepares it.

    A pure function of this package: it needs no data. Titles, licences, URLs and the variant that was used are not
    in it; options, the content's checksum and the meaning of the preparer and of what it imports are.
    """
    entry = find_set(set_key)
    if entry.preparer not in _preparers():
        raise UserError(f"data set '{set_key}': no preparer '{entry.preparer}'{nearest(entry.preparer, _preparers())}")
    decides = {
        "options": entry.options,
        "sources": {role: find_source(key).identity for role, key in entry.sources.items()},
        "code": code_fingerprint([_preparers()[entry.preparer]], leave_out=NOT_IN_THE_DATA),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


@functools.cache
def _preparers() -> dict[str, Path]:
    """Name below ``replications.datasets``, with dots -> file, of each module: a preparer is one of them."""
    found = {}
    for path in ROOM.rglob("*.py"):
        parts = path.relative_to(ROOM).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def describe_set(key: str) -> dict[str, Any]:
    """Return what a list, a table or a citation needs to know of a set.

    Keys: key, title, kind, licence, citation (BibTeX, one string), note, gated (sentences), homepages,
    bytes (to download), prepared_bytes.
    """
    entry = find_set(key)
    sources = [find_source(name) for name in dict.fromkeys(entry.sources.values())]

    def distinct(values) -> list[str]:
        return list(dict.fromkeys(value.strip() for value in values if value))

    return {
        "key": key,
        "title": entry.title,
        "kind": entry.kind,
        "licence": entry.licence or "; ".join(distinct(source.licence for source in sources)),
        "citation": "\n\n".join(distinct(source.citation for source in sources)),
        "note": entry.note,
        "gated": distinct(source.gated for source in sources),
        "homepages": distinct(source.homepage for source in sources),
        "bytes": sum(source.variants[0].size or 0 for source in sources),
        "prepared_bytes": entry.prepared_bytes,
    }
