"""Prepared sets as tasks open them: by the role that a tier gives them, with their splits."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from replications.datasets.arrays import PreparedSet, open_set
from replications.errors import UserError

if TYPE_CHECKING:
    from replications.tasks.run import Context

SPLITS = ("train", "validation", "test")
AnySet = TypeVar("AnySet")


class Splits:
    """A set with ``split`` int8 ``[N]``: 0 train, 1 validation, 2 test."""

    key: str
    split: np.ndarray

    def rows(self, split: str, needed: bool = False) -> np.ndarray:
        """Return the rows of a split, in the set's order; raises UserError where some are `needed` and none is there.

        A row of no split belongs to no use.
        """
        rows = np.flatnonzero(np.asarray(self.split) == SPLITS.index(split))
        if needed and not len(rows):
            raise UserError(f"data set '{self.key}' has nothing in its split '{split}'")
        return rows


def open_prepared(key: str, data_root: Path, what: str, needed: Collection[str]) -> PreparedSet:
    """Open a prepared set; raises UserError where it is missing (with how to prepare it) or lacks an array."""
    prepared = open_set(key, data_root)
    missing = [name for name in needed if name not in prepared.arrays]
    if missing:
        raise UserError(f"data set '{key}' is not a set of {what}: it has no '{missing[0]}'")
    return prepared


def set_key(context: "Context", role: str) -> str:
    """Return the key of the set that the run's data name for a role; raises UserError where they name none."""
    if role not in context.spec.data:
        raise UserError(f"{context.spec.task}: the tier names no data set for '{role}'")
    return context.spec.data[role]


def open_train_and_test(
    context: "Context", open_one: Callable[[str, Path], AnySet], alike: Collection[str] = ()
) -> tuple[AnySet, AnySet]:
    """Open the sets of the roles ``train`` and ``test``, once where both name the same.

    Raises UserError where an attribute that must be `alike` differs.
    """
    train_key, test_key = (set_key(context, role) for role in ("train", "test"))
    train = open_one(train_key, context.data_root)
    test = train if test_key == train_key else open_one(test_key, context.data_root)
    ensure_alike(train, test, alike)
    return train, test


def ensure_alike(one: Any, other: Any, names: Collection[str]) -> None:
    """Raise UserError, naming the first, where an attribute of two sets differs."""
    for name in names:
        if getattr(one, name) != getattr(other, name):
            raise UserError(f"data sets '{one.key}' and '{other.key}' have different {name.replace('_', ' ')}")
