"""Errors that a person can act on."""

import contextlib
import difflib
import errno
import os
import pwd
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence

MOST_SHOWN = 30  # names that a message lists


class UserError(Exception):
    """Something the person can fix. The message is one line: what, where, and the remedy.

    The command line prints ``error: <message>`` and exits with 2; no traceback.
    """


class RunFailure(Exception):
    """A run that ends in a record with ``status: failed`` (diverged, out of memory, ...), not in an exit code."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


REMEDIES = {
    "free some space and start again; finished work is kept": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "raise the limit with 'ulimit -n 4096', or start fewer processes": (errno.EMFILE, errno.ENFILE),
    "give this account permission, or choose another folder": (errno.EACCES, errno.EPERM),
    "that disk is read-only: choose another folder": (errno.EROFS,),
    "there is a file where a folder is needed: move it, or choose another folder": (errno.ENOTDIR, errno.EEXIST),
    "there is a folder where a file is needed: move it": (errno.EISDIR, errno.ENOTEMPTY),
    "choose a folder with a shorter path": (errno.ENAMETOOLONG,),
    "a symbolic link points to itself: remove it": (errno.ELOOP,),
    "the disk or its network failed: check both, and start again": (errno.EIO, errno.ESTALE),
    "it does not exist: check that the disk is mounted and nothing else deletes it": (errno.ENOENT, errno.ENXIO),
    "another program is using it: stop that, and start again": (errno.EBUSY, errno.ETXTBSY, errno.EAGAIN),
    "out of memory: start fewer processes": (errno.ENOMEM,),
}


def disk_error(error: OSError, doing: str, path: "str | os.PathLike[str]", note: str = "") -> UserError:
    """Return what the disk refused as one line: "cannot `doing` `path`: why (remedy)"; `note` ends the remedy.

    A path that the error itself names is shown instead of `path`.
    """
    remedy = next((text for text, numbers in REMEDIES.items() if error.errno in numbers), "fix this and start again")
    named = error.filename if isinstance(error.filename, str | bytes) and error.filename else path
    note = f"; {note}" if note else ""
    if error.errno in (errno.EACCES, errno.EPERM):
        with contextlib.suppress(OSError):
            owner = os.lstat(named).st_uid
            note = f"{note}; it belongs to {user_name(owner)}" if owner != os.getuid() else note
    why = error.strerror or str(error) or type(error).__name__
    return UserError(" ".join(f"cannot {doing} {os.fsdecode(named)}: {why} ({remedy}{note})".split("\n")))


def user_name(number: int) -> str:
    """Return "user NAME" for a user id, with the number where it has no name."""
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


@contextlib.contextmanager
def on_disk(doing: str, path: "str | os.PathLike[str]", note: str = "") -> Iterator[None]:
    """Turn any OSError of a block that is at `path` into a UserError of one line (`disk_error`)."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, doing, path, note) from error


@contextlib.contextmanager
def naming_changes(address: str, changes: Sequence[str]) -> Iterator[None]:
    """Make an error of a set-up that was changed by hand one line that names the changes: they are its likely cause.

    Which widths, depths or numbers of heads a model takes is known to nobody but the code that builds it. Without
    changes any error passes as it is.
    """
    try:
        yield
    except (UserError, RunFailure, OSError):
        raise
    except Exception as error:
        if not changes:
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
        raise UserError(f"{address} does not run with {', '.join(changes)}: {what} ({where})") from error


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
    text = str(disk_error(error, "read or write", "a file") if isinstance(error, OSError) else error)
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    text = re.sub(r"\S{300,}", lambda word: f"{word[0][:100]}...{word[0][-20:]}", text)
    return text if len(text) < 4000 else f"{text[:1500]} ... {text[-500:]}"
