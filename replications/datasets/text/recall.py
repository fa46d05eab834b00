"""Associative recall: pairs of key and value, then keys again, in another order, each followed by its own value.

Only the values after repeated keys are asked for. A model that finds the earlier pair tells every one of them: the
optimum is 0 bits; one that does not, ``log2(values)``.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.errors import UserError
from replications.parsing import parse


class Options(BaseModel):
    """Options of a set. Tokens are keys, then values; a sequence has ``4 * pairs`` of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    test: int = Field(ge=1)
    pairs: int = Field(ge=1)
    keys: int = Field(ge=1, le=128)
    values: int = Field(ge=2, le=128)
    seed: int = Field(0, ge=0)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``tokens`` uint8 [S, 4 pairs], ``asked`` bool [S, 4 pairs] and ``split`` int8 [S]."""
    wanted = parse(Options, options, "associative recall: options")
    if wanted.pairs > wanted.keys:
        raise UserError(f"associative recall: {wanted.pairs} pairs need as many different keys, not {wanted.keys}")
    counts = (wanted.train, wanted.validation, wanted.test)
    tokens, asked = draw(wanted, sum(counts))
    np.save(target / "tokens.npy", tokens)
    np.save(target / "asked.npy", asked)
    np.save(target / "split.npy", np.repeat(np.arange(3, dtype=np.int8), counts))
    return {"vocabulary": wanted.keys + wanted.values, "optimum_bits": 0.0, "options": wanted.model_dump()}


def draw(options: Options, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and asked positions of `count` sequences."""
    # raw 64-bit numbers and a stable sort: the same bits from every version of numpy
    raw = np.random.PCG64(options.seed)

    def uniform(*shape: int) -> np.ndarray:
        return (raw.random_raw(int(np.prod(shape))) >> 11).reshape(shape) / 2.0**53

    keys = uniform(count, options.keys).argsort(axis=1, kind="stable")[:, : options.pairs]
    values = options.keys + (uniform(count, options.pairs) * options.values).astype(np.int64)
    order = uniform(count, options.pairs).argsort(axis=1, kind="stable")
    first = np.stack([keys, values], axis=2).reshape(count, -1)
    again = np.stack([np.take_along_axis(x, order, axis=1) for x in (keys, values)], axis=2).reshape(count, -1)
    tokens = np.concatenate([first, again], axis=1).astype(np.uint8)
    asked = np.zeros(tokens.shape, bool)
    asked[:, 2 * options.pairs + 1 :: 2] = True
    return tokens, asked
