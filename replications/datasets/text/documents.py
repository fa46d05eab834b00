"""The form of a set of documents as numbered words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from replications.errors import UserError


def write_documents(
    target: Path, documents: Sequence[np.ndarray], label: np.ndarray, split: np.ndarray, vocabulary: int, classes: int
) -> dict:
    """Write ``words`` int32 [N], document after document, ``length`` int32, ``label`` int16 and ``split`` int8 [D].

    A document may be empty. Raises UserError where all are.
    """
    words = np.concatenate([np.zeros(0, np.int32), *documents]).astype(np.int32)
    if not len(words):
        raise UserError(f"{target.name.strip('.')}: no document has a word of the vocabulary")
    np.save(target / "words.npy", words)
    np.save(target / "length.npy", np.array([len(document) for document in documents], np.int32))
    np.save(target / "label.npy", np.asarray(label, np.int16))
    np.save(target / "split.npy", np.asarray(split, np.int8))
    return {"vocabulary": vocabulary, "classes": classes, "words": len(words)}
