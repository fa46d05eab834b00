"""The Large Movie Review Dataset word by word: reviews as `imdb` reads them, without markup, with their sentiment."""

import re
from pathlib import Path

import numpy as np
from pydantic import Field

from replications.datasets.text.imdb import read_reviews
from replications.datasets.text.words import words_of, write_texts
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

MARKUP = re.compile(r"<[^<>]*>")
KINDS = ("neg", "pos")


class Options(Strict):
    """`reviews`: how many there must be in train and in test; `leave_out` as `imdb.read_reviews` has it."""

    reviews: tuple[int, int]
    leave_out: tuple[str, ...] = ()
    validation: float = Field(gt=0, lt=1, description="share of the training reviews")
    vocabulary: int = Field(ge=1)
    least: int = Field(ge=1, description="a word must occur so often")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write the set as `words.write_texts` does; the classes are negative and positive. Raises UserError for a lack."""
    wanted = parse(Options, options, "IMDB words: options")
    reviews = read_reviews(files["reviews"], wanted.leave_out)
    parts = [[review for review in reviews if review[0] == part] for part in ("train", "test")]
    if tuple(map(len, parts)) != wanted.reviews:
        counts = list(map(len, parts))
        raise UserError(f"{files['reviews']} has {counts} reviews (train, test), expected {list(wanted.reviews)}")
    held_out = int(len(parts[0]) * wanted.validation)
    split = np.repeat([0, 1, 2], [len(parts[0]) - held_out, held_out, len(parts[1])])
    ordered = parts[0] + parts[1]
    texts = [words_of(MARKUP.sub(" ", text.decode("utf-8", "replace"))) for _, _, text in ordered]
    label = np.array([KINDS.index(kind) for _, kind, _ in ordered])
    return write_texts(target, texts, label, split, ("negative", "positive"), wanted.vocabulary, wanted.least)
