"""A language of synonyms: texts stay with a concept for some words, then pass to another; each has many words.

A word tells its concept and nothing else, but only the company of words shows which ones are synonyms: texts without
labels teach it, and a few labelled texts show most words a few times only. A quarter of the concepts is positive and
a quarter negative; a text's class is whichever it has more of, and a text with as many of both has none.
"""

from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from replications.datasets.text.words import NO_LABEL, SPECIAL
from replications.parsing import parse
from replications.spec import Strict

FOLLOWERS = (0.6, 0.3, 0.1)  # chances of the three concepts that like to follow a concept


class Options(Strict):
    """Sizes of the language and its splits."""

    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    test: int = Field(ge=1)
    length: int = Field(ge=2, description="words of a text")
    concepts: int = Field(ge=4, multiple_of=4)
    synonyms: int = Field(ge=1, description="words of a concept")
    stay: float = Field(ge=0, le=1, description="chance that a word is of the concept of the word before it")
    noise: float = Field(ge=0, le=1, description="chance of any concept at all; what is left goes to the followers")
    seed: int = Field(0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if SPECIAL + self.concepts * self.synonyms > 1 << 16:
            raise ValueError(f"{self.concepts} concepts of {self.synonyms} words are more than 16 bits can tell apart")
        if self.stay + self.noise > 1:
            raise ValueError(f"stay {self.stay} and noise {self.noise} are more than 1")
        return self


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write ``words``, ``start``, ``label`` (0 negative, 1 positive) and ``split`` as `words.write_texts` does.

    The word of a concept's synonym s is ``SPECIAL + concept * synonyms + s``. Facts: ``best_bits``, what a word of the
    test texts costs at least where all others are seen, by the true chances: from ``both`` sides, from the ``left``.
    """
    wanted = parse(Options, options, "language of synonyms: options")
    counts = (wanted.train, wanted.validation, wanted.test)
    draw = _Uniform(wanted.seed)
    chances, frequency = transitions(wanted, draw), frequencies(wanted.synonyms)
    concept = draw_concepts(chances, sum(counts), wanted.length, draw)
    synonym = _pick(frequency.cumsum(), draw(*concept.shape))
    polarity = np.repeat([1, -1, 0], [wanted.concepts // 4, wanted.concepts // 4, wanted.concepts // 2])
    balance = polarity[concept].sum(1)
    np.save(target / "words.npy", (SPECIAL + concept * wanted.synonyms + synonym).ravel().astype(np.uint16))
    np.save(target / "start.npy", np.arange(sum(counts) + 1, dtype=np.int64) * wanted.length)
    np.save(target / "label.npy", np.where(balance == 0, NO_LABEL, balance > 0).astype(np.int8))
    np.save(target / "split.npy", np.repeat(np.arange(3, dtype=np.int8), counts))
    test = slice(-wanted.test, None)
    return {
        "vocabulary": SPECIAL + wanted.concepts * wanted.synonyms,
        "classes": ["negative", "positive"],
        "empty_texts": 0,
        "unknown_share": 0.0,
        "best_bits": best_bits(chances, frequency, concept[test], synonym[test]),
    }


class _Uniform:
    """Uniform numbers in [0, 1), the same bits from every version of numpy."""

    def __init__(self, seed: int):
        self.raw = np.random.PCG64(seed)

    def __call__(self, *shape: int) -> np.ndarray:
        return (self.raw.random_raw(int(np.prod(shape))) >> 11).reshape(shape) / 2.0**53


def _pick(cumulated: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return the place of each uniform number in cumulated chances, the last axis of `cumulated`."""
    return np.minimum((uniform[..., None] >= cumulated).sum(-1), cumulated.shape[-1] - 1)


def transitions(options: Options, draw: _Uniform) -> np.ndarray:
    """Return the chance of each concept (column) after each (row)."""
    follows = np.zeros((options.concepts, options.concepts))
    followers = draw(options.concepts, options.concepts).argsort(axis=1, kind="stable")[:, : len(FOLLOWERS)]
    np.put_along_axis(follows, followers, np.array(FOLLOWERS)[None], axis=1)
    moves = (1 - options.stay - options.noise) * follows + options.noise / options.concepts
    return moves + options.stay * np.eye(options.concepts)


def frequencies(synonyms: int) -> np.ndarray:
    """Return the chances of a concept's words, falling as ``1 / (rank + 2)``."""
    weight = 1 / (np.arange(synonyms) + 3.0)
    return weight / weight.sum()


def draw_concepts(chances: np.ndarray, count: int, length: int, draw: _Uniform) -> np.ndarray:
    """Return the concepts of texts ``[count, length]``; the first is any of them."""
    concept = np.empty((count, length), np.int64)
    concept[:, 0] = draw(count) * len(chances)
    cumulated = chances.cumsum(1)
    for place in range(1, length):
        concept[:, place] = _pick(cumulated[concept[:, place - 1]], draw(count))
    return concept


def best_bits(chances: np.ndarray, frequency: np.ndarray, concept: np.ndarray, synonym: np.ndarray) -> dict[str, float]:
    """Return the mean of ``-log2 p(word | others)``: others are the concepts beside it, or the one before it."""
    count = len(chances)
    before = np.full((*concept.shape, count), 1 / count)
    before[:, 1:] = chances[concept[:, :-1]]
    after = np.ones_like(before)
    after[:, :-1] = chances.T[concept[:, 1:]]
    word = -np.log2(frequency[synonym]).mean()
    found = {}
    for name, weight in (("both", before * after), ("left", before)):
        own = np.take_along_axis(weight, concept[..., None], axis=2)[..., 0] / weight.sum(2)
        found[name] = float(word - np.log2(own).mean())
    return found
