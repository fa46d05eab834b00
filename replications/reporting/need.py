"""What an undecided claim still needs: which rows go on to the next look."""

from collections.abc import Iterable

from replications import looks
from replications.reporting.verdicts import Verdict


def next_seeds(verdicts: Iterable[Verdict], most: int) -> dict[str, int]:
    """Return for each method (``arcface/softmax``) that an undecided claim needs, the seeds of its next look.

    A claim is undecided where it was tested and is inconclusive. Looks after the `most`-th are left out.
    """
    needed: dict[str, int] = {}
    for verdict in verdicts:
        done = looks.looks_of(verdict.n)
        if verdict.adjusted != "inconclusive" or done >= most:
            continue
        for method in filter(None, (verdict.subject, verdict.reference)):
            needed[method] = max(needed.get(method, 0), looks.LOOKS[done])
    return needed
