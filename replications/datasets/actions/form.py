"""The form of a set of streams, however it was made.

``features`` float32 [N, D] and ``target`` uint8 [N, C] hold the frames of all streams, one after the other; column 0
of the target is the background, and a frame may have several actions. ``valid`` bool [N] is false where a frame's
label is ambiguous. ``bounds`` int64 [S + 1] are the streams' ends, ``split`` int8 [S] (0 train, 1 validation, 2 test).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from replications.errors import UserError

ARRAYS = ("features", "target", "valid", "bounds", "split")


def write_labels(
    target: Path, labels: Sequence[np.ndarray], valid: Sequence[np.ndarray], split: np.ndarray, classes: Sequence[str]
) -> dict:
    """Write all but the features; returns the set's facts. Raises UserError where no test frame has an action."""
    lengths = np.array([len(label) for label in labels])
    rows = np.concatenate(labels).astype(np.uint8)
    tested = np.repeat(split == 2, lengths) & np.concatenate(valid)
    if not rows[tested, 1:].any():
        raise UserError(
            f"{target.name.strip('.')}: no frame of the test streams has an action, so nothing can be scored"
        )
    np.save(target / "target.npy", rows)
    np.save(target / "valid.npy", np.concatenate(valid))
    np.save(target / "bounds.npy", np.cumsum([0, *lengths], dtype=np.int64))
    np.save(target / "split.npy", split.astype(np.int8))
    return {"classes": list(classes), "streams": np.bincount(split, minlength=3).tolist()}
