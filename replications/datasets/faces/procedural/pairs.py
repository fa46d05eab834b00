"""Ten folds of test identities and a pair list in the manner of LFW's View 2."""

import numpy as np

from replications.datasets.faces.procedural.draws import PAIRS, TEST, words
from replications.errors import UserError

FOLDS = 10


def fold_of(person: np.ndarray) -> np.ndarray:
    """Test fold 1..10 (int8) of a test identity, independent of the number of identities."""
    return (person % FOLDS + 1).astype(np.int8)


def draw_pairs(identity: np.ndarray, fold: np.ndarray, per_fold: int, seed: int) -> dict[str, np.ndarray]:
    """Draw `per_fold` matched, then as many mismatched pairs in each of the ten folds, none twice.

    `identity` int32 [N] and `fold` int8 [N] describe the images; both images of a pair are of the pair's
    fold, so the identities of the folds are disjoint. Returns ``pairs`` int32 [P, 2] (image rows, the smaller
    first), ``pair_same`` bool [P], ``pair_fold`` int8 [P] and ``pair_error`` bool [P], all False: no label is
    wrong. Raises UserError where a fold has too few different pairs.
    """
    pairs, same = [], []
    for number in range(1, FOLDS + 1):
        rows = np.flatnonzero(fold == number)
        first, second = np.triu_indices(len(rows), 1)
        first, second = rows[first], rows[second]
        matched = identity[first] == identity[second]
        for kind in (True, False):
            candidates = np.flatnonzero(matched == kind)
            if len(candidates) < per_fold:
                word = "matched" if kind else "mismatched"
                raise UserError(
                    f"procedural faces: pairs_per_fold is {per_fold}, but fold {number} has only "
                    f"{len(candidates)} {word} pairs (raise test_identities or test_images_per_identity)"
                )
            keys = words(seed, PAIRS, TEST, number, int(kind), len(candidates))
            chosen = np.sort(candidates[np.argsort(keys, kind="stable")[:per_fold]])
            pairs.append(np.stack([first[chosen], second[chosen]], axis=1))
            same.append(np.full(per_fold, kind))
    return {
        "pairs": np.concatenate(pairs).astype(np.int32),
        "pair_same": np.concatenate(same),
        "pair_fold": np.repeat(np.arange(1, FOLDS + 1, dtype=np.int8), 2 * per_fold),
        "pair_error": np.zeros(2 * per_fold * FOLDS, dtype=bool),
    }
