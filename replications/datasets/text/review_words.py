"""The Large Movie Review Dataset as numbered words: lower case, letters and apostrophes, no markup.

The vocabulary is that of all reviews, as embeddings are trained on all of them without their labels. Words outside of
it are left out.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from replications.datasets.text.documents import write_documents
from replications.datasets.text.imdb import TEST, TRAIN, VALIDATION, read_reviews
from replications.errors import UserError

WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
BREAK = re.compile(r"<br\s*/?>")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write the arrays of `write_documents` from the source ``reviews``; label 1 is positive. `options`:

    ``least``: how often a word must occur; ``validation``: fraction of the training part; ``reviews``: how many there
    must be in train and in test; ``leave_out``: as in `replications.datasets.text.imdb`.
    """
    reviews = read_reviews(files["reviews"], options.get("leave_out", ()))
    parts = [[review for review in reviews if review[0] == split] for split in ("train", "test")]
    if (counts := [len(part) for part in parts]) != list(options["reviews"]):
        raise UserError(f"{files['reviews']} has {counts} reviews (train, test), expected {options['reviews']}")
    held_out = int(counts[0] * options["validation"])
    texts = [tokenise(text) for part in parts for _, _, text in part]
    documents, vocabulary = number(texts, options["least"])
    label = np.array([kind == "pos" for part in parts for _, kind, _ in part])
    split = np.repeat([TRAIN, VALIDATION, TEST], [counts[0] - held_out, held_out, counts[1]])
    return write_documents(target, documents, label, split, vocabulary, 2)


def tokenise(text: bytes) -> list[str]:
    """Return the words of a review."""
    return WORD.findall(BREAK.sub(" ", text.decode("utf-8", "replace").lower()))


def number(texts: list[list[str]], least: int) -> tuple[list[np.ndarray], int]:
    """Number the words that occur `least` times, the most frequent first; return the texts as numbers, and how many.

    Words that are as frequent come in alphabetical order.
    """
    counts = Counter(word for text in texts for word in text)
    kept = sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word))
    numbers = {word: place for place, word in enumerate(kept)}
    return [np.array([numbers[w] for w in text if w in numbers], np.int32) for text in texts], len(kept)
