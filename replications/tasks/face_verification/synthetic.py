"""Random sets in the form of the task's own. The number of people is the set's: it is the size of the loss's head."""

import numpy as np

from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet, random_bytes
from replications.spec import RunSpec
from replications.tasks.face_verification.options import FOLDS

# (people to train on, images of each): casia_112 by its property file, lfw_112 those with two images or more.
PEOPLE = {"casia_112": (10_572, 1), "lfw_112": (1_680, 2)}
TESTED = (80, 4)  # people who are only tested, images of each
PAIRS = 20  # of each fold


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return sets by key that hold a batch of `samples`."""
    train, test = spec.data["train"], spec.data["test"]
    if train != test:
        return {train: _set(train, _trained_on(train), (0, 0)), test: _set(test, (0, 0), TESTED)}
    if spec.task_options.get("protocol") == "no_outside_data":
        return {test: _set(test, (0, 0), _trained_on(test))}
    return {test: _set(test, _trained_on(test), TESTED)}


def _trained_on(key: str) -> tuple[int, int]:
    options = find_set(key).options
    if "train_identities" in options:
        return options["train_identities"], options["train_images_per_identity"]
    return PEOPLE.get(key) or (options["num_identities"], 1)


def _set(key: str, trained: tuple[int, int], tested: tuple[int, int]) -> SyntheticSet:
    """A set with people of fold 0 and people of the ten folds, `trained` and `tested`: (people, images of each)."""
    options = find_set(key).options
    side = options.get("size") or options["image_size"]
    count = trained[0] * trained[1] + tested[0] * tested[1]
    identity = np.concatenate(
        [np.repeat(np.arange(trained[0]), trained[1]), trained[0] + np.repeat(np.arange(tested[0]), tested[1])]
    )
    fold = np.where(identity < trained[0], 0, 1 + identity % len(FOLDS))
    arrays = {"images": random_bytes((count, side, side, 3)), "identity": identity, "fold": fold}
    if tested[0]:
        pairs = [np.resize(np.flatnonzero(fold == number), (PAIRS, 2)) for number in FOLDS]
        pairs = np.concatenate(pairs)
        arrays |= {
            "pairs": pairs,
            "pair_same": identity[pairs[:, 0]] == identity[pairs[:, 1]],
            "pair_fold": fold[pairs[:, 0]],
            "pair_error": np.zeros(len(pairs), bool),
        }
    return SyntheticSet(arrays, {})
