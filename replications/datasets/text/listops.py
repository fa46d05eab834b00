"""ListOps: nested list operations on digits, after the published grammar of the Long Range Arena (Tay et al. 2021).

A node is a digit with probability 3/4 (surely at the greatest depth), else one of MIN, MAX, MED (the median, rounded
down) and SM (the sum modulo 10) of 2 to `max_args` nodes. Trees with a number of tokens outside the limits are drawn
again, as is a tree that is there already. Its value, a digit, is the class. Each tree comes from a random stream of
its own, so the set is the same on every machine and with any number of workers.
"""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.rows import cut, fill_rows
from replications.errors import UserError
from replications.parsing import parse as parse_options

OPERATION_PROBABILITY = 0.25
TOKENS = ("", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")  # the first is padding
FIRST_DIGIT, FIRST_OPERATION, END = 1, 11, 15


def _median(values: list[int]) -> int:
    """Median, rounded down."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) // 2


OPERATIONS = (min, max, _median, lambda values: sum(values) % 10)
MOST_ATTEMPTS = 1_000_000
ROWS_A_JOB = 500


class Options(BaseModel):
    """Options of a set. Length limits are exclusive and count tokens; LRA has 500, 2000, depth 10 and 10 arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    test: int = Field(ge=1)
    min_length: int = Field(500, ge=2)
    max_length: int = Field(2000, ge=4)
    max_depth: int = Field(10, ge=1, le=50)
    max_args: int = Field(10, ge=2)
    seed: int = Field(0, ge=0)


def check_options(options: dict) -> Options:
    """Return the typed options; raises UserError that names the first wrong one."""
    found = parse_options(Options, options, "ListOps: options")
    if found.min_length + 1 >= found.max_length:
        raise UserError(f"ListOps: no length is between {found.min_length} and {found.max_length}")
    return found


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``tokens`` uint8 [S, max_length - 1] (0 is padding), ``length`` int32, ``label`` uint8, ``split`` int8."""
    wanted = check_options(options)
    counts = (wanted.train, wanted.validation, wanted.test)
    total = sum(counts)
    fill_rows(
        target,
        {
            "tokens": ((total, wanted.max_length - 1), "uint8"),
            "length": ((total,), "int32"),
            "label": ((total,), "uint8"),
        },
        cut(range(total), ROWS_A_JOB),
        partial(draw_rows, wanted),
        workers if total * wanted.max_length > 10_000_000 else 1,
        "drawing ListOps",
    )
    split = np.repeat(np.arange(3, dtype=np.int8), counts)
    _redraw_doubles(target, wanted, total)
    np.save(target / "split.npy", split)
    label = np.load(target / "label.npy")
    return {
        "vocabulary": len(TOKENS),
        "classes": 10,
        "majority": float(np.bincount(label[split == 2], minlength=10).max() / wanted.test),
        "options": wanted.model_dump(),
    }


def draw_rows(options: Options, rows: range, attempt: int = 0) -> dict[str, np.ndarray]:
    """Draw the trees of rows; another `attempt` gives another tree."""
    tokens = np.zeros((len(rows), options.max_length - 1), np.uint8)
    length, label = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.uint8)
    for place, row in enumerate(rows):
        stream = random.Random(f"{options.seed}/{row}/{attempt}")
        sequence, label[place] = draw_sequence(options, stream)
        length[place] = len(sequence)
        tokens[place, : len(sequence)] = sequence
    return {"tokens": tokens, "length": length, "label": label}


def draw_sequence(options: Options, stream: random.Random) -> tuple[list[int], int]:
    """Return the tokens of a tree within the length limits, and its value; raises UserError where there is none."""
    for _ in range(MOST_ATTEMPTS):
        sequence: list[int] = []
        value = _grow(options, stream, 1, sequence)
        if options.min_length < len(sequence) < options.max_length:
            return sequence, value
    raise UserError(
        f"ListOps: depth {options.max_depth} and {options.max_args} arguments hardly ever give a length between "
        f"{options.min_length} and {options.max_length}: change the limits"
    )


def _grow(options: Options, stream: random.Random, depth: int, sequence: list[int]) -> int:
    """Append a node's tokens and return its value; a tree that is too long already is not grown to its end."""
    if len(sequence) >= options.max_length or depth >= options.max_depth or stream.random() > OPERATION_PROBABILITY:
        digit = int(10 * stream.random())
        sequence.append(FIRST_DIGIT + digit)
        return digit
    operation = int(len(OPERATIONS) * stream.random())
    sequence.append(FIRST_OPERATION + operation)
    count = 2 + int((options.max_args - 1) * stream.random())
    value = OPERATIONS[operation]([_grow(options, stream, depth + 1, sequence) for _ in range(count)])
    sequence.append(END)
    return value


def _redraw_doubles(target: Path, options: Options, total: int) -> None:
    arrays = {name: np.load(target / f"{name}.npy", mmap_mode="r+") for name in ("tokens", "length", "label")}
    seen: set[bytes] = set()
    for row in range(total):
        for attempt in range(1, 1001):
            key = arrays["tokens"][row].tobytes().rstrip(b"\0")
            if key not in seen:
                break
            for name, value in draw_rows(options, range(row, row + 1), attempt).items():
                arrays[name][row] = value[0]
        else:
            raise UserError(f"ListOps: there are fewer than {total} different sequences within the limits")
        seen.add(key)
    for array in arrays.values():
        array.flush()


def parse(expression: str) -> list[int]:
    """Return the tokens of an expression as the Long Range Arena writes it: ``( ( ( [MAX 2 ) 9 ) ] )``."""
    words = expression.replace("(", " ").replace(")", " ").split()
    try:
        return [TOKENS.index("]" if word == "X" else word) for word in words]
    except ValueError:
        unknown = next(word for word in words if word not in TOKENS)
        raise UserError(f"'{unknown}' is not a word of ListOps") from None


def evaluate(tokens: Sequence[int]) -> int:
    """Return the value of a whole sequence of tokens."""
    pending: list[tuple[int, list[int]]] = [(0, [])]
    for token in tokens:
        if FIRST_OPERATION <= token < END:
            pending.append((token - FIRST_OPERATION, []))
        elif token == END:
            operation, values = pending.pop()
            pending[-1][1].append(OPERATIONS[operation](values))
        else:
            pending[-1][1].append(int(token) - FIRST_DIGIT)
    (value,) = pending[0][1]
    return value
