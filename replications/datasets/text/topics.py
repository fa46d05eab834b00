"""Documents of known topics, drawn: what an embedding must find out is which words go together.

A word is common to all topics, or a topic's own, or borrowed from the next topic's own words. Each kind has its own
Zipf distribution. A document mixes a main topic, its label, with others; its words come in runs of one topic.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from replications.datasets.text.documents import write_documents
from replications.parsing import parse

SHORTEST = 8  # words


class Options(BaseModel):
    """Options of a set. Words are the common ones, then those of each topic."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    train: int = Field(ge=1, description="documents")
    validation: int = Field(ge=1)
    test: int = Field(ge=1)
    topics: int = Field(ge=2)
    common: int = Field(ge=1, description="words that any topic may use")
    own: int = Field(ge=1, description="words of each topic")
    background: float = Field(ge=0, lt=1, description="share of common words in a document")
    borrowed: float = Field(ge=0, lt=1, description="share of the next topic's words among a topic's words")
    main: float = Field(gt=0, le=1, description="least share of a document's main topic")
    run: int = Field(ge=1, description="words in a row of one topic")
    length: int = Field(ge=SHORTEST, description="words of a document, on average")
    seed: int = Field(0, ge=0)


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write the arrays of `write_documents`."""
    wanted = parse(Options, options, "topics: options")
    counts = (wanted.train, wanted.validation, wanted.test)
    documents, label = draw(wanted, sum(counts))
    split = np.repeat(np.arange(3, dtype=np.int8), counts)
    vocabulary = wanted.common + wanted.topics * wanted.own
    return write_documents(target, documents, label, split, vocabulary, wanted.topics)


def draw(options: Options, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the words of `count` documents, and the main topic of each."""
    # raw 64-bit numbers and stable sorts: the same bits from every version of numpy
    raw = np.random.PCG64(options.seed)

    def uniform(*shape: int) -> np.ndarray:
        return (raw.random_raw(int(np.prod(shape))) >> 11).reshape(shape) / 2.0**53

    topics = options.topics
    orders = uniform(topics, 2, options.own).argsort(axis=2, kind="stable")  # of a topic's own and borrowed words
    common, own = _zipf(options.common), _zipf(options.own)
    label = (uniform(count) * topics).astype(np.int64)
    length = SHORTEST + (-(options.length - SHORTEST) * np.log1p(-uniform(count))).astype(np.int64)
    others = np.sort(uniform(count, topics - 1), axis=1)  # where the shares of the topics meet: flat over all mixtures
    runs = -(-length // options.run)
    document = np.repeat(np.arange(count), runs)
    is_main, which = uniform(2, len(document))
    other = (which[:, None] >= others[document]).sum(1)
    of_run = np.where(is_main < options.main, label[document], other)
    start = np.cumsum(runs) - runs
    place = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    topic = of_run[np.repeat(start, length) + place // options.run]
    is_common, is_borrowed, in_common, in_own = uniform(4, len(topic))
    borrowed = (is_borrowed < options.borrowed).astype(np.int64)
    word = options.common + (topic + borrowed) % topics * options.own + orders[topic, borrowed, _pick(own, in_own)]
    word = np.where(is_common < options.background, _pick(common, in_common), word).astype(np.int32)
    return np.split(word, np.cumsum(length)[:-1]), label


def _zipf(count: int) -> np.ndarray:
    """Return cumulative probabilities that fall with the rank as 1 / (rank + 5)."""
    weights = 1 / (np.arange(count) + 5.0)
    return np.cumsum(weights / weights.sum())


def _pick(cumulative: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the number of the interval that holds each of `place` in [0, 1)."""
    return np.minimum(np.searchsorted(cumulative, place, side="right"), len(cumulative) - 1)
