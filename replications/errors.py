"""Errors that a person can act on."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the person can put right. The message is one line: what, where, and the remedy.

    The command line prints ``error: <message>`` and exits with 2; no traceback.
    """


class RunFailure(Exception):
    """A run that ends in a record with ``status: failed`` (diverged, out of memory, ...), not in an exit code."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)``, or the list of candidates where none is near.

    >>> nearest("arcfase", ["arcface", "deepid"])
    " (did you mean 'arcface'?)"
    """
    candidates = sorted(candidates)
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(candidates)})"
