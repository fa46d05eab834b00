"""Text files with any line ends, with or without a byte-order mark."""

import codecs
from pathlib import Path

from replications.errors import UserError


def text_of(data: bytes, name: str) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a mark, as Windows writes it; UserError for any other."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {name}: it is not UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        raise UserError(f"cannot read {name}: it is not text (character {text.index(chr(0))} is zero)")
    return text


def lines_of(data: bytes, name: str) -> list[str]:
    """Return the lines of a text without the empty ones, nor spaces at their ends."""
    return [line.strip() for line in text_of(data, name).splitlines() if line.strip()]


def read_text(path: Path) -> str:
    """Return the text of a file; raises UserError where it is not there or no text."""
    try:
        return text_of(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: see what 'python -m replications list data' says of its set") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror} (make it readable)") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file without the empty ones, nor spaces at their ends; raises UserError."""
    return [line.strip() for _, line in numbered_lines(path)]


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Return number and text of each line that is not empty; raises UserError."""
    return [(number, line) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
