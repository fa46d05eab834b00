"""Errors that a person can act on."""

import difflib
import re
from collections.abc import Iterable

MOST_SHOWN = 30  # names that a message lists


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
    more = f" and {len(candidates) - MOST_SHOWN} more" if len(candidates) > MOST_SHOWN else ""
    return f" (known: {', '.join(candidates[:MOST_SHOWN])}{more})"


def one_line(error: Exception) -> str:
    """Return an error's message as one line that a terminal can show, without the middle of a huge word.

    >>> one_line(UserError("no file 'a\\nb'"))
    "no file 'a\\\\nb'"
    """
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        named = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        text = f"{named or 'input or output'}: {error.strerror} (check the path, its rights and the disk)"
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    text = re.sub(r"\S{300,}", lambda word: f"{word[0][:100]}...{word[0][-20:]}", text)
    return text if len(text) < 4000 else f"{text[:1500]} ... {text[-500:]}"
