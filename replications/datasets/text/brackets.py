"""Nested brackets of several kinds (a Dyck language of limited depth): which closing bracket is due?

Only closing brackets are asked for. The one that is due is the partner of the last open one, so a model that keeps the
stack tells every one of them: the optimum is 0 bits.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.parsing import parse


class Options(BaseModel):
    """Options of a set. Tokens are the opening kinds, then the closing ones; `length` is even."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    test: int = Field(ge=1)
    length: int = Field(ge=2, multiple_of=2)
    kinds: int = Field(ge=2, le=128)
    max_depth: int = Field(ge=1)
    seed: int = Field(0, ge=0)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``tokens`` uint8 [S, length], ``asked`` bool [S, length] and ``split`` int8 [S]."""
    wanted = parse(Options, options, "brackets: options")
    counts = (wanted.train, wanted.validation, wanted.test)
    tokens = draw(wanted, sum(counts))
    np.save(target / "tokens.npy", tokens)
    np.save(target / "asked.npy", tokens >= wanted.kinds)
    np.save(target / "split.npy", np.repeat(np.arange(3, dtype=np.int8), counts))
    return {"vocabulary": 2 * wanted.kinds, "optimum_bits": 0.0, "options": wanted.model_dump()}


def draw(options: Options, count: int) -> np.ndarray:
    """Return the tokens of `count` sequences: opened or closed with equal chance, wherever both may be."""
    raw = np.random.PCG64(options.seed)  # raw numbers: the same bits from every version of numpy
    numbers = (raw.random_raw(2 * count * options.length) >> 11).reshape(2, options.length, count) / 2.0**53
    tokens = np.zeros((count, options.length), np.uint8)
    stack = np.zeros((count, min(options.max_depth, options.length // 2) + 1), np.int64)
    depth, row = np.zeros(count, np.int64), np.arange(count)
    for place in range(options.length):
        left = options.length - place
        deepest = np.minimum(options.max_depth, left)
        opens = (depth == 0) | ((numbers[0, place] < 0.5) & (depth < deepest) & (depth < left))
        kind = (numbers[1, place] * options.kinds).astype(np.int64)
        due = stack[row, np.maximum(depth - 1, 0)]
        tokens[:, place] = np.where(opens, kind, options.kinds + due)
        stack[row[opens], depth[opens]] = kind[opens]
        depth += np.where(opens, 1, -1)
    return tokens
