"""Compare two versions of a table file cell by cell, and name each cell that differs."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from itertools import zip_longest

TOLERANCE = 1e-9


def _same(found, expected) -> bool:
    if isinstance(found, float | int) and isinstance(expected, float | int):
        return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE * 1e-3)
    return found == expected


def told(cell: str, found, expected) -> str:
    return f"{cell}: {found} in the file, {expected} from the records"


def compare(suffix: str, found: str, expected: str) -> list[str]:
    if found == expected:
        return []
    if suffix == ".json":
        try:
            return list(_compare_trees(json.loads(found), json.loads(expected), ""))
        except ValueError as error:
            return [f"not JSON: {error}"]
    if suffix == ".csv":
        return list(_compare_csv(found, expected))
    return list(_compare_lines(found, expected, "|" if suffix == ".md" else "&"))


def _name(entry: dict) -> str | None:
    return entry.get("address") or "/".join(filter(None, (entry.get("paper"), entry.get("claim")))) or None


def _compare_trees(found, expected, where: str) -> Iterator[str]:
    """Walk two JSON values. Rows and verdicts are matched by their address, so that one that moved is one line."""
    if isinstance(expected, list) and isinstance(found, list):
        if all(isinstance(entry, dict) and _name(entry) for entry in [*expected, *found]):
            names = [_name(entry) for entry in found], [_name(entry) for entry in expected]
            if sorted(names[0]) == sorted(names[1]) and names[0] != names[1]:
                yield told(f"{where} order", ", ".join(names[0]), ", ".join(names[1]))
            found, expected = ({_name(entry): entry for entry in side} for side in (found, expected))
        elif len(found) == len(expected):
            found, expected = (dict(enumerate(side)) for side in (found, expected))
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*expected, *found]):
            path = f"{where} {key}".strip()
            if key not in found or key not in expected:
                yield told(path, *("something" if key in side else "nothing" for side in (found, expected)))
            else:
                yield from _compare_trees(found[key], expected[key], path)
    elif not _same(found, expected):
        yield told(where, found, expected)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _compare_csv(found: str, expected: str) -> Iterator[str]:
    sides = []
    for text in (found, expected):
        rows = list(csv.DictReader(io.StringIO(text)))
        sides.append({_row_name(row): row for row in rows})
    for name in dict.fromkeys([*sides[1], *sides[0]]):
        one, other = (side.get(name) for side in sides)
        if one is None or other is None:
            yield told(name, *("a row" if row else "no row" for row in (one, other)))
            continue
        for column in dict.fromkeys([*other, *one]):
            x, y = one.get(column) or "", other.get(column) or ""
            if not _same(_number(x), _number(y)):
                yield told(f"{name} {column}", x, y)


def _row_name(row: dict) -> str:
    told = (row.get("address"), row.get("seed") and f"seed {row['seed']}", row.get("metric"))
    return " ".join(filter(None, told)) or f"{row.get('paper')}/{row.get('claim')}"


def _table_rows(text: str, separator: str) -> dict[tuple[int, str], tuple[list[str], list[str]]]:
    """Cells and header of each line of Markdown or LaTeX tables, by number of the table and first cell."""
    rows, header, tables_seen = {}, [], 0
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").removesuffix(r" \\").split(separator)]
        if cells[0] in ("Method", "Claim"):
            header, tables_seen = cells, tables_seen + 1
        rows[tables_seen, cells[0]] = (cells, header)
    return rows


def _compare_lines(found: str, expected: str, separator: str) -> Iterator[str]:
    left, right = _table_rows(found, separator), _table_rows(expected, separator)
    for key in dict.fromkeys([*right, *left]):
        if key not in left or key not in right:
            yield told(f"line '{key[1]}'", *("there" if key in side else "absent" for side in (left, right)))
            continue
        (cells, _), (others, header) = left[key], right[key]
        for column, (x, y) in enumerate(zip_longest(cells, others, fillvalue="")):
            if x != y:
                name = header[column] if column < len(header) else f"cell {column + 1}"
                yield told(f"{others[0]} {name}", x, y)
    if found.splitlines() != expected.splitlines() and left == right:
        yield told("order of the lines", "changed", "another")


class _Cells(HTMLParser):
    """Collects the text and ``data-value`` of every element with a ``data-cell``."""

    def __init__(self):
        super().__init__()
        self.found: dict[str, tuple[str, float | None]] = {}
        self._open: tuple[str, str, str | None] | None = None
        self._text = ""

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        if "data-cell" in told:
            self._open, self._text = (tag, told["data-cell"], told.get("data-value")), ""
        elif tag == "small":  # the method's title below its address
            self._close()

    def handle_data(self, data):
        self._text += data

    def handle_endtag(self, tag):
        if self._open and tag == self._open[0]:
            self._close()

    def _close(self):
        if self._open:
            _, cell, value = self._open
            self.found[cell] = (self._text.strip(), None if value is None else float(value))
            self._open = None


def compare_page(html: str, expected: Mapping[str, tuple[str, float | None]]) -> Iterator[str]:
    parser = _Cells()
    parser.feed(html)
    for cell, (text, value) in expected.items():
        found = parser.found.get(cell)
        name = cell.replace("|", " ")
        if found is None:
            yield told(name, "nothing", text)
        elif found[0] != text.strip():
            yield told(name, found[0], text)
        elif not _same(found[1], value):
            yield told(f"{name} (sort value)", found[1], value)
    for cell in parser.found.keys() - expected.keys():
        yield told(cell.replace("|", " "), parser.found[cell][0], "nothing")
