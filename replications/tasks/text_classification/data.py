"""The task's data: texts as words, cut to what a model sees; a set's arrays are those of ``datasets/text/words.py``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replications.datasets.text.words import NO_LABEL, PADDING, SPECIAL
from replications.errors import UserError
from replications.tasks.data import Splits, open_prepared
from replications.training.determinism import derive_seed


@dataclass(frozen=True)
class TextSet(Splits):
    """Texts one after the other in `words`, their bounds in `start`. Tokens are below `vocabulary`."""

    key: str
    words: np.ndarray
    start: np.ndarray
    label: np.ndarray
    split: np.ndarray
    vocabulary: int
    classes: int

    def tokens(self, rows: np.ndarray, length: int, seen: str = "first") -> np.ndarray:
        """Return the first or last `length` words of texts, int64 ``[rows, length]``, `PADDING` after shorter ones."""
        found = np.full((len(rows), length), PADDING, np.int64)
        for place, row in enumerate(rows):
            text = self.words[self.start[row] : self.start[row + 1]]
            part = text[:length] if seen == "first" else text[-length:]
            found[place, : len(part)] = part
        return found

    def pieces(self, rows: np.ndarray, length: int) -> np.ndarray:
        """Return all words of texts in pieces of up to `length`, int64 ``[pieces, length]``; no piece joins two texts.

        Pieces without a known word are left out. Raises UserError where none is left.
        """
        found = []
        for row in rows:
            text = np.asarray(self.words[self.start[row] : self.start[row + 1]], np.int64)
            text = np.pad(text, (0, -len(text) % length), constant_values=PADDING)
            found.append(text.reshape(-1, length))
        joined = np.concatenate(found)
        joined = joined[(joined >= SPECIAL).any(1)]
        if not len(joined):
            raise UserError(f"data set '{self.key}': no training text has a word of the vocabulary")
        return joined

    def labelled(self, split: str) -> np.ndarray:
        """Return the texts of a split that have a label; raises UserError where there are none."""
        rows = self.rows(split, needed=True)
        rows = rows[self.label[rows] != NO_LABEL]
        if not len(rows):
            raise UserError(f"data set '{self.key}' has no labelled text in its split '{split}'")
        return rows

    def few(self, count: int, seed: int) -> np.ndarray:
        """Return `count` labelled training texts by seed, equally many of each class; fewer are among more.

        Raises UserError where the number does not divide, or a class has too few.
        """
        each, rest = divmod(count, self.classes)
        if rest:
            raise UserError(f"{count} labelled texts do not divide into the {self.classes} classes of '{self.key}'")
        rows = self.labelled("train")
        order = np.random.default_rng(derive_seed(seed, "labelled")).permutation(rows)
        found = []
        for place in range(self.classes):
            own = order[self.label[order] == place]
            if len(own) < each:
                raise UserError(f"data set '{self.key}' has {len(own)} training texts of class {place}, not {each}")
            found.append(own[:each])
        return np.concatenate(found)


def open_texts(key: str, data_root: Path) -> TextSet:
    """Open a set; raises UserError where it is something else, or its labels are not those of its classes."""
    prepared = open_prepared(key, data_root, "texts as words", ("words", "start", "label", "split"))
    facts, arrays = prepared.meta["facts"], prepared.arrays
    label, classes = np.asarray(arrays["label"]), len(facts["classes"])
    if label.min() < NO_LABEL or label.max() >= classes:
        raise UserError(f"data set '{key}' has the label {label.max()}, but {classes} classes")
    start, split = np.asarray(arrays["start"]), np.asarray(arrays["split"])
    return TextSet(key, arrays["words"], start, label, split, facts["vocabulary"], classes)
