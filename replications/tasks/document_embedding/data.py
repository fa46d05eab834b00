"""A prepared set of documents as the task uses it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from replications.errors import UserError
from replications.tasks.data import Splits, open_prepared


@dataclass
class Documents(Splits):
    """Words of all documents in a row ``[N]``, the document of each, and each document's label and split ``[D]``."""

    key: str
    words: np.ndarray
    document: np.ndarray
    label: np.ndarray
    split: np.ndarray
    vocabulary: int
    classes: int

    def __len__(self) -> int:
        return len(self.label)

    def counts(self) -> csr_array:
        """Return how often each word is in each document, float32 ``[D, vocabulary]``; empty rows for empty ones."""
        ones = np.ones(len(self.words), np.float32)
        return csr_array((ones, (self.document, self.words)), shape=(len(self), self.vocabulary))


def open_documents(key: str, data_root: Path) -> Documents:
    """Open a set; raises UserError where it is none of documents, or has too few words to tell one from another."""
    found = open_prepared(key, data_root, "documents", ("words", "length", "label", "split"))
    arrays, facts = found.arrays, found.meta["facts"]
    length = np.asarray(arrays["length"])
    document = np.repeat(np.arange(len(length)), length)
    words = np.asarray(arrays["words"])
    return check(
        Documents(
            key, words, document, np.asarray(arrays["label"]), np.asarray(arrays["split"]),
            facts["vocabulary"], facts["classes"],
        )
    )  # fmt: skip


def check(documents: Documents) -> Documents:
    """Return the documents; raises UserError, naming it, for what can be neither embedded nor scored."""
    where = f"data set '{documents.key}'"
    different = len(np.unique(documents.words))
    if different < 2:
        raise UserError(f"{where} has {different} different words; pairs need noise words, so at least 2")
    trained = np.unique(documents.label[documents.rows("train", needed=True)])
    if len(trained) < 2:
        raise UserError(f"{where} has training documents of {len(trained)} class; a classifier needs at least 2")
    for split in ("validation", "test"):
        unknown = np.setdiff1d(documents.label[documents.rows(split)], trained)
        if len(unknown):
            raise UserError(f"{where}: class {unknown[0]} of the {split} documents has no training document")
    return documents
