"""Derived sections of a Markdown file, each between two markers."""

from pathlib import Path

from replications.errors import UserError


def section_of(text: str, name: str) -> str | None:
    """Return the text between the markers of a section, or None if a marker is missing."""
    begin, end = markers(name)
    _, found, rest = text.partition(begin)
    inside, also, _ = rest.partition(end)
    return inside.strip() if found and also else None


def with_section(path: Path, text: str, name: str, section: str) -> str:
    """Return the text of the file `path` with a section regenerated; raises UserError if a marker is missing."""
    begin, end = markers(name)
    if section_of(text, name) is None:
        raise UserError(f"{path} lacks the markers '{begin}' and '{end}'")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"


def markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
