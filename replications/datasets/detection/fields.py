"""Fields of annotations that people write: whole numbers, finite numbers, names of files. UserError for any other."""

import math
from collections.abc import Hashable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from replications.errors import UserError

LARGEST = float(np.finfo(np.float32).max)
MOST = {"int64": 2**63 - 1, "int32": 2**31 - 1}


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()  # what a row without a field has there


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, and not longer than a name."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole(row: Mapping[str, Any], field: str, where: str, least: int | None = None, kind: str = "int64") -> int:
    """Return a field that must be a whole number (7 and 7.0 are one; true, "7" and 7.2 are none) within `kind`."""
    value = row.get(field, MISSING)
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise UserError(f"{where}: its {field} must be a whole number, not {shown(value)}")
    if not (-MOST[kind] if least is None else least) <= number <= MOST[kind]:
        raise UserError(f"{where}: its {field} {shown(value)} is out of range")
    return number


def finite(value: Any) -> float | None:
    """Return a value as a float where it is a number that float32 holds, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) <= LARGEST else None


def is_name(value: Any) -> bool:
    """Whether a value is a text on one line that can be written and printed."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in value)
    )


def inner_path(row: Mapping[str, Any], field: str, where: str) -> str:
    """Return a field that must be the path of a file below the folder of images."""
    value = row.get(field, MISSING)
    if not is_name(value):
        raise UserError(f"{where}: its {field} must be the name of a file, not {shown(value)}")
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"{where}: its {field} {shown(value)} is not a file in the folder of images")
    return str(path)


def repeated(values: Iterable[Hashable]) -> Hashable | None:
    """Return the first value that was there before, or None where all differ."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
