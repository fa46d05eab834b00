"""Labeled Faces in the Wild, View 2: images, identities, the ten folds and their 6,000 pairs.

Official files: an archive with ``*/NAME/NAME_0001.jpg``, ``people.txt`` (people and their number of images, by fold)
and ``pairs.txt`` (300 matched and 300 mismatched pairs a fold). The images are read from the archive in one pass
while other processes decode: unpacking them first takes longer.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from pydantic import Field

from replications.datasets.decoding import face_rows
from replications.datasets.extract import tar_files
from replications.datasets.lines import numbered_lines
from replications.datasets.litter import is_litter
from replications.datasets.rows import Job, fill_rows
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

ROWS_A_JOB = 256


class Options(Strict):
    """Options of the set; the counts are those that the official files must have."""

    image_size: int = Field(gt=0, description="width and height of the archive's images, pixels")
    crop: tuple[int, int, int, int] = Field(description="left, upper, right, lower, pixels")
    size: int = Field(gt=0, description="width and height of the prepared images, pixels")
    num_images: int
    num_identities: int
    num_pairs: int
    label_errors: tuple[tuple[int, str, int, int], ...] = Field(description="fold, name, image numbers")


class Person(NamedTuple):
    name: str
    num_images: int
    fold: int


class Pair(NamedTuple):
    """A line of pairs.txt: two images (name, number), and the fold that tests it."""

    first: tuple[str, int]
    second: tuple[str, int]
    fold: int
    line: int


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write images, identity, fold, pairs, pair_same, pair_fold and pair_error into `target`.

    Identities are numbered, and images ordered, by name and number. Raises UserError where the files are not the
    official ones: a wrong count, an image that is missing or unlisted, a pair outside its fold.
    """
    wanted = parse(Options, options, "options of the LFW set")
    people = sorted(read_people(files["people"]))
    pairs = read_pairs(files["pairs"])
    rows = {}
    for person in people:
        for number in range(1, person.num_images + 1):
            rows[person.name, number] = len(rows)
    for what, found, expected, file in (
        ("people", len(people), wanted.num_identities, files["people"]),
        ("images", len(rows), wanted.num_images, files["people"]),
        ("pairs", len(pairs), wanted.num_pairs, files["pairs"]),
    ):
        if found != expected:
            raise UserError(f"{file} lists {found} {what} instead of {expected}")
    arrays = _pair_arrays(pairs, rows, {person.name: person.fold for person in people}, files["pairs"])
    arrays["pair_error"] = _label_errors(wanted.label_errors, pairs, files["pairs"])
    arrays["identity"] = np.repeat(np.arange(len(people), dtype=np.int32), [p.num_images for p in people])
    arrays["fold"] = np.repeat(np.array([p.fold for p in people], np.int8), [p.num_images for p in people])
    for name, array in arrays.items():
        np.save(target / f"{name}.npy", array)

    shape = (len(rows), wanted.size, wanted.size, 3)
    function = partial(face_rows, image_size=wanted.image_size, crop=wanted.crop, size=wanted.size)
    fill_rows(target, {"images": (shape, "uint8")}, _jobs(files["images"], rows), function, workers, "prepare LFW")
    return {
        "num_images": len(rows),
        "num_identities": len(people),
        "num_pairs": len(pairs),
        "num_folds": int(arrays["fold"].max()),
        "known_label_errors": int(arrays["pair_error"].sum()),
    }


def read_people(path: Path) -> list[Person]:
    """Parse people.txt: the number of folds, then for each the number of people and a line ``NAME<TAB>COUNT`` each."""
    lines = _lines(path)
    people = []
    for fold in range(1, _count(lines, path) + 1):
        for _ in range(_count(lines, path)):
            number, words = next(lines, (0, []))
            if len(words) != 2 or not words[1].isdecimal() or int(words[1]) < 1:
                raise UserError(f"{path}:{number}: expected a name and the number of its images")
            people.append(Person(words[0], int(words[1]), fold))
    _end(lines, path)
    names = [person.name for person in people]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} lists {twice} twice: the folds must not share people")
    return people


def read_pairs(path: Path) -> list[Pair]:
    """Parse pairs.txt: ``folds<TAB>n``, then for each fold n matched lines (NAME I J) and n mismatched (A I B J)."""
    lines = _lines(path)
    number, words = next(lines, (0, []))
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        raise UserError(f"{path}:{number}: expected the number of folds and of pairs, such as '10<TAB>300'")
    folds, pairs_a_side = map(int, words)
    pairs = []
    for fold in range(1, folds + 1):
        for matched in (True, False):
            for _ in range(pairs_a_side):
                number, words = next(lines, (0, []))
                expected = "a name and two image numbers" if matched else "two names, each with an image number"
                full = [words[0], words[1], words[0], words[2]] if matched and len(words) == 3 else words
                if len(words) != (3 if matched else 4) or not (full[1].isdecimal() and full[3].isdecimal()):
                    raise UserError(f"{path}:{number}: expected {expected}")
                if (full[0] == full[2]) != matched:
                    raise UserError(f"{path}:{number}: a mismatched pair of one person")
                pairs.append(Pair((full[0], int(full[1])), (full[2], int(full[3])), fold, number))
    _end(lines, path)
    return pairs


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split()) for number, line in numbered_lines(path))


def _count(lines: Iterator[tuple[int, list[str]]], path: Path) -> int:
    number, words = next(lines, (0, []))
    if len(words) != 1 or not words[0].isdecimal():
        raise UserError(f"{path}:{number}: expected a count")
    return int(words[0])


def _end(lines: Iterator[tuple[int, list[str]]], path: Path) -> None:
    for number, _ in lines:
        raise UserError(f"{path}:{number}: more lines than the counts say")


def _pair_arrays(pairs: list[Pair], rows: dict, fold_of: dict[str, int], path: Path) -> dict[str, np.ndarray]:
    """Return the pair arrays; raises UserError for a pair of a missing image, or of people of another fold."""
    for pair in pairs:
        for name, number in (pair.first, pair.second):
            if (name, number) not in rows:
                raise UserError(f"{path}:{pair.line}: there is no image {number} of {name}")
            if fold_of[name] != pair.fold:
                raise UserError(f"{path}:{pair.line}: {name} is of fold {fold_of[name]}, the pair of fold {pair.fold}")
    return {
        "pairs": np.array([[rows[pair.first], rows[pair.second]] for pair in pairs], np.int32),
        "pair_same": np.array([pair.first[0] == pair.second[0] for pair in pairs]),
        "pair_fold": np.array([pair.fold for pair in pairs], np.int8),
    }


def _label_errors(errors: tuple, pairs: list[Pair], path: Path) -> np.ndarray:
    """Mark the pairs whose label is known to be wrong; raises UserError where one of them is not among the pairs."""
    index = {(pair.fold, pair.first, pair.second): i for i, pair in enumerate(pairs)}
    marked = np.zeros(len(pairs), bool)
    for fold, name, first, second in errors:
        key = (fold, (name, first), (name, second))
        if key not in index:
            raise UserError(
                f"{path} has no pair {name} {first} {second} in fold {fold}: a known label error is missing"
            )
        marked[index[key]] = True
    return marked


def _jobs(archive: Path, rows: dict[tuple[str, int], int]) -> Iterator[Job]:
    """Read the archive once; give away each run of rows as soon as it is complete (the archive is in their order)."""
    seen = np.zeros(len(rows), bool)
    collected: dict[int, dict[int, tuple[str, bytes]]] = {}
    for member, stream in tar_files(archive):
        stem = PurePosixPath(member).stem
        name, _, number = stem.rpartition("_")
        if is_litter(member) or not member.lower().endswith(".jpg") or not number.isdecimal():
            continue
        row = rows.get((name, int(number)))
        if row is None or seen[row]:
            raise UserError(
                f"{archive}: {member} is {'listed twice' if row is not None else 'not listed in people.txt'}"
            )
        seen[row] = True
        job = row // ROWS_A_JOB
        items = collected.setdefault(job, {})
        items[row] = (f"{archive}: {member}", stream.read())
        start = job * ROWS_A_JOB
        count = min(ROWS_A_JOB, len(rows) - start)
        if len(items) == count:
            yield Job(start, count, [items[r] for r in range(start, start + count)])
            del collected[job]
    if not seen.all():
        missing = list(rows)[int(np.argmin(seen))]
        raise UserError(
            f"{archive} lacks {len(seen) - seen.sum()} images, the first is image {missing[1]} of {missing[0]}"
        )
