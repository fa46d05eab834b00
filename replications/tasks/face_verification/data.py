"""Face sets, and which of their identities are trained on, held out and tested."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replications.errors import UserError
from replications.layers.faces.pairs import distinct_pairs
from replications.tasks.data import open_prepared
from replications.tasks.face_verification.options import FOLDS, FaceOptions


@dataclass(frozen=True)
class FaceSet:
    """A prepared set of `N` images; the pair arrays are empty where the set is only for training.

    `fold` 0 is training only, 1..10 the test fold of the identity. `pairs` holds image rows, `error` marks
    the pairs whose label is known to be wrong.
    """

    key: str
    about: dict[str, Any]
    images: np.ndarray  # uint8 [N, S, S, 3]
    identity: np.ndarray  # int [N]
    fold: np.ndarray  # int [N]
    pairs: np.ndarray  # int [P, 2]
    same: np.ndarray  # bool [P]
    pair_fold: np.ndarray  # int [P]
    error: np.ndarray  # bool [P]

    def __post_init__(self):
        self._check()

    def _refuse(self, what: str) -> None:
        raise UserError(f"data set '{self.key}': {what} (prepare it again)")

    def _check(self) -> None:
        images = len(self.images)
        if self.images.ndim != 4 or self.images.shape[1] != self.images.shape[2] or self.images.shape[3] != 3:
            self._refuse(f"images are not [N, S, S, 3] but {list(self.images.shape)}")
        if len(self.identity) != images or len(self.fold) != images:
            self._refuse(f"{images} images, {len(self.identity)} identities and {len(self.fold)} folds")
        if not np.isin(self.fold, (0, *FOLDS)).all():
            self._refuse("a fold that is not of 0..10")
        people, first = np.unique(self.identity, return_index=True)
        own_fold = self.fold[first]
        astray = np.flatnonzero(own_fold[np.searchsorted(people, self.identity)] != self.fold)
        if len(astray):
            self._refuse(f"identity {self.identity[astray[0]]} is in two folds")
        if len({len(self.pairs), len(self.same), len(self.pair_fold), len(self.error)}) != 1:
            self._refuse("pair arrays of different lengths")
        if not len(self.pairs):
            return
        outside = np.flatnonzero(((self.pairs < 0) | (self.pairs >= images)).any(axis=1))
        if len(outside):
            self._refuse(f"pair {outside[0]} names a missing image")
        wrong = np.flatnonzero((self.fold[self.pairs] != self.pair_fold[:, None]).any(axis=1))
        if len(wrong):
            self._refuse(f"pair {wrong[0]} has an image of another fold")

    @property
    def size(self) -> int:
        return self.images.shape[1]


def open_faces(key: str, data_root: Path) -> FaceSet:
    """Open a prepared set; raises UserError where it is missing (with how to prepare it) or inconsistent."""
    from replications.datasets.registry import describe_set

    arrays = open_prepared(key, data_root, "faces", ("images", "identity", "fold")).arrays
    return FaceSet(
        key=key,
        about=describe_set(key),
        images=arrays["images"],
        identity=np.asarray(arrays["identity"], np.int64),
        fold=np.asarray(arrays["fold"], np.int64),
        pairs=np.asarray(arrays.get("pairs", np.zeros((0, 2))), np.int64),
        same=np.asarray(arrays.get("pair_same", ()), bool),
        pair_fold=np.asarray(arrays.get("pair_fold", ()), np.int64),
        error=np.asarray(arrays.get("pair_error", ()), bool),
    )


@dataclass(frozen=True)
class Split:
    """Rows of the training set by their use; no identity has two uses.

    `label` numbers the training identities 0.. in the order in which `train_identities` adds them, so that
    the labels of a smaller subset mean the same people. `validation_pairs` index into `validation_rows`.
    """

    train_rows: np.ndarray
    label: np.ndarray
    num_identities: int
    verifier_rows: np.ndarray
    validation_rows: np.ndarray
    validation_pairs: np.ndarray
    validation_same: np.ndarray


def split_identities(identity: np.ndarray, rows: np.ndarray, options: FaceOptions, seed: int) -> Split:
    """Divide the people of `rows` into those to train on and those held out. The same seed, the same people.

    Raises UserError where fewer than two identities are left, or `train_identities` asks for more than
    there are.
    """
    people, count = np.unique(identity[rows], return_counts=True)
    shuffled = np.random.default_rng([seed, 0]).permutation(len(people))
    people, count = people[shuffled], count[shuffled]
    several = people[count > 1]
    validating = round(options.validation_fraction * len(several))
    verifying = round(options.verifier_fraction * len(several))
    validation, verifier = several[:validating], several[validating : validating + verifying]
    training = people[count >= options.min_images_per_identity]
    training = training[~np.isin(training, np.concatenate([validation, verifier]))]
    wanted = options.train_identities
    if isinstance(wanted, float):
        wanted = round(wanted * len(training))
    wanted = len(training) if wanted is None else wanted
    if wanted > len(training) or wanted < 2:
        raise UserError(
            f"train_identities: {wanted} of {len(training)} identities (with {options.min_images_per_identity} "
            "images or more, after those held out); at least 2 are needed"
        )
    training = training[:wanted]

    def rows_of(chosen: np.ndarray) -> np.ndarray:
        return rows[np.isin(identity[rows], chosen)]

    train_rows, validation_rows = rows_of(training), rows_of(validation)
    order = np.argsort(training)
    label = order[np.searchsorted(training, identity[train_rows], sorter=order)]
    pairs, same = np.zeros((0, 2), np.int64), np.zeros(0, bool)
    if options.validation_fraction:
        pairs, same = distinct_pairs(identity[validation_rows], options.validation_pairs, seed)
    return Split(train_rows, label, wanted, rows_of(verifier), validation_rows, pairs, same)


def ensure_disjoint(train: FaceSet, test: FaceSet, trained_rows: np.ndarray, tested_rows: np.ndarray) -> None:
    """Raise UserError where a person whose images were learned from is tested. Sets name people on their own."""
    if train.key != test.key:
        return
    both = np.intersect1d(train.identity[trained_rows], test.identity[tested_rows])
    if len(both):
        raise UserError(f"data set '{train.key}': identity {both[0]} would be both trained on and tested")
