"""Pairs made from identities, to fit verifiers and thresholds on and to validate with; never to test with."""

import numpy as np

from replications.errors import UserError


def draw_pairs(identity: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` pairs with replacement, half matched and half mismatched, in random order.

    A matched pair is two different images of an identity drawn uniformly among those with two images or
    more, so that a person with hundreds of images does not outweigh the rest; a mismatched pair is an image
    each of two different identities, drawn uniformly. Returns indices ``[count, 2]`` into `identity` and
    ``same [count]``. Raises UserError where the identities allow no matched or no mismatched pair.
    """
    order = np.argsort(identity, kind="stable")
    _, first, size = np.unique(identity[order], return_index=True, return_counts=True)
    several = np.flatnonzero(size > 1)
    if not len(several) or len(size) < 2:
        raise UserError(
            f"{len(size)} held-out identities, {len(several)} of them with two images, make no pairs: "
            "hold out a larger fraction (task options 'validation_fraction', 'verifier_fraction')"
        )
    matched = count // 2
    person = several[rng.integers(len(several), size=matched)]
    left = rng.integers(size[person])
    right = (left + 1 + rng.integers(size[person] - 1)) % size[person]
    same_pairs = first[person][:, None] + np.stack([left, right], axis=1)
    one = rng.integers(len(size), size=count - matched)
    other = (one + 1 + rng.integers(len(size) - 1, size=count - matched)) % len(size)
    people = np.stack([one, other], axis=1)
    different_pairs = first[people] + rng.integers(size[people])
    pairs = order[np.concatenate([same_pairs, different_pairs])]
    same = np.arange(count) < matched
    shuffled = rng.permutation(count)
    return pairs[shuffled], same[shuffled]


def distinct_pairs(identity: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to `count` distinct pairs and ``same``, as many matched as mismatched.

    There are fewer where the identities do not have as many. See `draw_pairs`.
    """
    drawn, same = draw_pairs(identity, 2 * count, np.random.default_rng(seed))
    drawn = np.sort(drawn, axis=1)
    kept = [np.unique(drawn[same == wanted], axis=0) for wanted in (True, False)]
    size = min(count // 2, *map(len, kept))
    # np.unique sorts: take a spread of them, not the first identities only.
    kept = [pairs[np.arange(size) * len(pairs) // size] for pairs in kept]
    return np.concatenate(kept), np.repeat([True, False], size)
