"""ListOps as the Long Range Arena released it: ``basic_{train,val,test}.tsv`` with the columns Source and Target."""

import csv
from pathlib import Path

import numpy as np

from replications.datasets.text.listops import TOKENS, parse
from replications.errors import UserError

FILES = ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``tokens`` uint8 [S, length] (0 is padding), ``length``, ``label`` and ``split`` of the folder ``listops``.

    `options` has ``length``: longer sequences are cut, as in the arena. Raises UserError for a wrong file.
    """
    rows: list[tuple[list[int], int]] = []
    counts = []
    for name in FILES:
        before = len(rows)
        rows += _read(files["listops"] / name)
        counts.append(len(rows) - before)
    length = options["length"]
    tokens = np.zeros((len(rows), length), np.uint8)
    for row, (sequence, _) in enumerate(rows):
        tokens[row, : len(sequence)] = sequence[:length]
    np.save(target / "tokens.npy", tokens)
    np.save(target / "length.npy", np.array([min(len(sequence), length) for sequence, _ in rows], np.int32))
    np.save(target / "label.npy", np.array([label for _, label in rows], np.uint8))
    np.save(target / "split.npy", np.repeat(np.arange(3, dtype=np.int8), counts))
    test = np.array([label for _, label in rows[-counts[-1] :]])
    return {
        "vocabulary": len(TOKENS),
        "classes": 10,
        "majority": float(np.bincount(test, minlength=10).max() / len(test)),
    }


def _read(path: Path) -> list[tuple[list[int], int]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            if reader.fieldnames is None or not {"Source", "Target"} <= set(reader.fieldnames):
                raise UserError(f"{path}: the columns are {reader.fieldnames}, expected Source and Target")
            rows = [_row(row, f"{path}:{reader.line_num}") for row in reader]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from None
    if not rows:
        raise UserError(f"{path} has no sequences")
    return rows


def _row(row: dict[str, str | None], where: str) -> tuple[list[int], int]:
    try:
        tokens, label = parse(row["Source"] or ""), int(row["Target"] or "")
    except (UserError, ValueError) as error:
        raise UserError(f"{where}: {error}") from None
    if not tokens or not 0 <= label <= 9:
        raise UserError(f"{where}: expected a sequence, and a digit that is its value, not {label}")
    return tokens, label
