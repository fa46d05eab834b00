"""Texts as sequences of words: what a preparer of such a set writes, and how text is cut into words.

A vocabulary holds the most frequent words of the training texts alone. Tokens 0 to 2 are `PADDING`, `UNKNOWN` (a word
that is not in it) and `MASK`; words follow, the most frequent first.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from replications.errors import UserError

PADDING, UNKNOWN, MASK, SPECIAL = 0, 1, 2, 3
NO_LABEL = -1
WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)*")

Texts = Sequence[Sequence[str]]


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case: letters and digits, with apostrophes inside. An empty text has none."""
    return WORD.findall(text.lower())


def vocabulary_of(texts: Iterable[Sequence[str]], most: int, least: int) -> list[str]:
    """Return up to `most` words that occur at least `least` times, the most frequent first, ties in order of letters.

    Raises UserError where there is none.
    """
    counts = Counter(word for text in texts for word in text)
    kept = sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word))
    if not kept:
        raise UserError(f"no word occurs {least} times in the training texts")
    return kept[:most]


def write_texts(
    target: Path, texts: Texts, label: np.ndarray, split: np.ndarray, classes: Sequence[str], most: int, least: int
) -> dict:
    """Write a set: ``words`` uint16 [W], all texts one after the other; ``start`` int64 [N + 1], the bounds of each.

    Also ``label`` int8 [N] (`NO_LABEL`: none) and ``split`` int8 [N] (0 train, 1 validation, 2 test). Texts without a
    word are left out. Returns the facts.
    """
    vocabulary = vocabulary_of((text for text, where in zip(texts, split, strict=True) if where == 0), most, least)
    if SPECIAL + len(vocabulary) > 1 << 16:
        raise UserError(f"a vocabulary of {len(vocabulary)} words is more than 16 bits can tell apart")
    token = {word: SPECIAL + index for index, word in enumerate(vocabulary)}
    kept = np.array([bool(text) for text in texts])
    rows = [[token.get(word, UNKNOWN) for word in text] for text in texts if text]
    words = np.array([word for row in rows for word in row], np.uint16)
    np.save(target / "words.npy", words)
    np.save(target / "start.npy", np.cumsum([0, *map(len, rows)], dtype=np.int64))
    np.save(target / "label.npy", np.asarray(label, np.int8)[kept])
    np.save(target / "split.npy", np.asarray(split, np.int8)[kept])
    return {
        "vocabulary": SPECIAL + len(vocabulary),
        "classes": list(classes),
        "empty_texts": int((~kept).sum()),
        "unknown_share": float((words == UNKNOWN).mean()),
    }
