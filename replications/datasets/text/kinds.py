"""Definitions of WordNet's nouns with their kind (animal, artefact, ...), from the files of `dictionary`, word by word.

WordNet numbers its nouns by their place in one file, in which the nouns of a lexicographer's file (noun.animal,
noun.artifact, ...) stand together; `kinds` says which numbers are of which kind. The word that is defined is not shown.
"""

import hashlib
from pathlib import Path

import numpy as np
from pydantic import Field

from replications.datasets.text.dictionary import FOLDER, _package, _read
from replications.datasets.text.words import NO_LABEL, words_of, write_texts
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict


class Options(Strict):
    """`definitions`: the file's name -> sha256; `kinds`: a kind -> its first number, and the first after it."""

    definitions: dict[str, str] = Field(min_length=1, max_length=1)
    kinds: dict[str, tuple[int, int]] = Field(min_length=2)
    validation: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    vocabulary: int = Field(ge=1)
    least: int = Field(ge=1, description="a word must occur so often")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write the set as `words.write_texts` does. Raises UserError where the file is not that of the lock."""
    wanted = parse(Options, options, "kinds: options")
    ((name, checksum),) = wanted.definitions.items()
    definitions = _read(_package() / FOLDER / name, checksum)
    synsets = sorted(definitions, key=lambda synset: hashlib.sha256(synset.encode()).digest())
    texts = [words_of(definitions[synset].decode()) for synset in synsets]
    test, validation = (int(len(synsets) * share) for share in (wanted.test, wanted.validation))
    split = np.repeat(np.arange(3), [len(synsets) - validation - test, validation, test])
    label = np.array([kind_of(synset, list(wanted.kinds.values())) for synset in synsets])
    return write_texts(target, texts, label, split, list(wanted.kinds), wanted.vocabulary, wanted.least)


def kind_of(synset: str, kinds: list[tuple[int, int]]) -> int:
    """Return the place of a synset's kind, `NO_LABEL` for one of no kind; raises UserError for another name."""
    if not (synset[:1] == "n" and synset[1:].isdigit()):
        raise UserError(f"'{synset}' is not the name of a noun's synset, such as n02084071")
    number = int(synset[1:])
    return next((place for place, (first, stop) in enumerate(kinds) if first <= number < stop), NO_LABEL)
