"""The looks: how many seeds a claim is judged at, fixed in advance.

A claim is tested at 3, 5, 8 and 12 seeds, always seeds 0 to n - 1. The error rate is shared out over the looks by
their weights, so a study may stop or go on after each of them and its verdicts stay valid.
"""

from itertools import pairwise

LOOKS = (3, 5, 8, 12)
WEIGHTS = (0.1, 0.4, 0.3, 0.2)


def seeds_of(looks: int) -> tuple[int, ...]:
    """Return the seeds of the first `looks` looks: of two looks, 0 to 4."""
    return tuple(range(LOOKS[looks - 1]))


def looks_of(seeds: int) -> int:
    """Return how many looks are complete with seeds 0 to `seeds` - 1: of 6 seeds, two."""
    return sum(size <= seeds for size in LOOKS)


def passes_of(looks: int) -> tuple[tuple[int, ...], ...]:
    """Return the seeds that each of the first `looks` looks adds: of two looks, (0, 1, 2) and (3, 4)."""
    return tuple(tuple(range(start, end)) for start, end in pairwise((0, *LOOKS[:looks])))
