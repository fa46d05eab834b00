"""The Large Movie Review Dataset (Maas et al. 2011), as running text or as classified byte sequences.

Reads ``aclImdb/{train,test}/{pos,neg}/ID_RATING.txt`` from a tar, whatever it is compressed with; the unlabelled part
is passed over. Reviews come in the order of a hash of their names, so positive and negative ones are mixed and a limit
takes no kind first. Bytes are bytes: markup and odd characters stay.
"""

import hashlib
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from replications.datasets.extract import tar_files
from replications.datasets.text.files import write_text
from replications.errors import UserError

NAME = re.compile(r"(?:^|/)(train|test)/(pos|neg)/(\d+)_\d+\.txt$")
TRAIN, VALIDATION, TEST = 0, 1, 2

Review = tuple[str, str, bytes]


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write a set from the source ``reviews``. `options`:

    ``form`` "text" gives ``text`` and ``splits``; "classes" gives ``tokens`` uint8 [S, length], ``length``, ``label``
    (1: positive) and ``split``. ``length`` cuts reviews. ``validation``: fraction of the training reviews. ``reviews``:
    how many there must be in train and in test. ``leave_out``: reviews to leave out, as ``train/neg/2``.
    """
    reviews = read_reviews(files["reviews"], options.get("leave_out", ()))
    counts = [sum(review[0] == split for review in reviews) for split in ("train", "test")]
    if counts != list(options["reviews"]):
        raise UserError(f"{files['reviews']} has {counts} reviews (train, test), expected {options['reviews']}")
    train = [review for review in reviews if review[0] == "train"]
    test = [review for review in reviews if review[0] == "test"]
    held_out = int(len(train) * options["validation"])
    parts = [train[: len(train) - held_out], train[len(train) - held_out :], test]
    if options["form"] == "text":
        return {"reviews": len(reviews), **write_text(target, (_joined(part) for part in parts))}
    return _write_classes(target, parts, options["length"])


def read_reviews(archive: Path, leave_out: Collection[str]) -> list[Review]:
    """Return (train or test, pos or neg, bytes) of each review, in the order of the hash of its name."""
    found: dict[str, Review] = {}
    for member, stream in tar_files(archive):
        match = NAME.search(member)
        if match and (name := "/".join(match.groups())) not in leave_out:
            if name in found:
                raise UserError(f"{archive}: review {name} occurs twice")
            found[name] = (match[1], match[2], stream.read())
    order = sorted(found, key=lambda name: hashlib.sha256(name.encode()).digest())
    return [found[name] for name in order]


def _joined(reviews: list[Review]) -> bytes:
    return b"".join(text + b"\n" for _, _, text in reviews)


def _write_classes(target: Path, parts: list[list[Review]], length: int) -> dict:
    reviews = [review for part in parts for review in part]
    tokens = np.lib.format.open_memmap(target / "tokens.npy", "w+", np.uint8, (len(reviews), length))
    for row, (_, _, text) in enumerate(reviews):
        cut = np.frombuffer(text, np.uint8)[:length]
        tokens[row, : len(cut)] = cut
    tokens.flush()
    np.save(target / "length.npy", np.array([min(len(text), length) for _, _, text in reviews], np.int32))
    np.save(target / "label.npy", np.array([kind == "pos" for _, kind, _ in reviews], np.uint8))
    np.save(target / "split.npy", np.repeat(np.arange(3, dtype=np.int8), [len(part) for part in parts]))
    return {"vocabulary": 256, "classes": 2, "reviews": len(reviews)}
