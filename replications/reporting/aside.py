"""A pool of forked processes, for long work that only writes files.

The copies are forked when the work is at hand, so they see all there is here and nothing needs to pickle. With one
processor, and where forking is unsafe (other systems than Linux), the work is done here and at once.
"""

import gc
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from replications.measurement.hardware import cpu_count
from replications.measurement.process import die_with_parent

BATCH = 4  # pieces that one process does where they come faster than they are done: a fork has its price
Piece = tuple[Callable[..., Any], tuple[Any, ...]]


class Aside:
    """Does work aside, in up to `processes` processes at a time; a context that ends when all is done.

    What a piece of work raises is passed to ``failed(error, *arguments)`` in this process; all other pieces are done.
    Where a process dies, its pieces are done once more, each in a separate process: a piece must bear that.
    """

    def __init__(self, failed: Callable[..., None], processes: int | None = None):
        if processes is None:
            processes = cpu_count() if sys.platform == "linux" else 1
        self._failed, self._processes = failed, processes
        self._waiting: list[Piece] = []
        self._started: list[tuple[Any, Connection, list[Piece]]] = []  # in the order asked for

    def __enter__(self) -> "Aside":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                while self._waiting:
                    self._wait()
                    self._start(1)
                while self._started:
                    self._finish_first()
        finally:
            self._stop()

    def do(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have ``function(*arguments)`` done; what it returns is lost. Waits where much is waiting already."""
        if self._processes < 2:
            self._tell([(function, arguments)], _done([(function, arguments)]))
            return
        self._waiting.append((function, arguments))
        if len(self._waiting) >= BATCH:
            self._wait()
        if len(self._going()) < self._processes:
            self._start(BATCH)

    def _going(self) -> list[Connection]:
        return [receiver for _, receiver, _ in self._started if not receiver.poll()]

    def _wait(self) -> None:
        """Wait until another process may start."""
        while len(going := self._going()) >= self._processes:
            wait(going)

    def _start(self, count: int) -> None:
        while self._started and self._started[0][1].poll():
            self._finish_first()
        pieces, self._waiting = self._waiting[:count], self._waiting[count:]
        try:
            self._started.append((*_begun(pieces), pieces))
        except OSError:  # no room for another process
            self._tell(pieces, _done(pieces))

    def _finish_first(self) -> None:
        errors = _outcome(*self._started[0])
        pieces = self._started.pop(0)[2]
        if errors is None:  # the process died over one of them
            errors = [_alone(piece) for piece in pieces]
        self._tell(pieces, errors)

    def _tell(self, pieces: list[Piece], errors: list[Exception | None]) -> None:
        for (_, arguments), error in zip(pieces, errors, strict=True):
            if error is not None:
                self._failed(error, *arguments)

    def _stop(self) -> None:
        for process, receiver, _ in self._started:
            process.kill()
            process.join()
            receiver.close()
        self._started.clear()
        self._waiting.clear()


def _begun(pieces: list[Piece]) -> tuple[Any, Connection]:
    """Start a process that does the pieces; return it, and where it will say how each one went."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, os.getpid(), pieces))
    process.start()
    sender.close()
    return process, receiver


def _outcome(process: Any, receiver: Connection, pieces: list[Piece]) -> list[Exception | None] | None:
    """Wait for a process and return what each piece raised; None where it died without a word."""
    try:
        errors = pickle.loads(receiver.recv_bytes())
    except (EOFError, OSError):
        errors = None
    process.join()
    receiver.close()
    return errors


def _alone(piece: Piece) -> Exception | None:
    """Do a piece in a separate process; return what it raised, or that the process died."""
    try:
        process, receiver = _begun([piece])
    except OSError as error:
        return error
    try:
        errors = _outcome(process, receiver, [piece])
    finally:
        process.kill()  # where this process is interrupted
    return errors[0] if errors else RuntimeError(f"a process ended with exit code {process.exitcode}")


def _done(pieces: list[Piece]) -> list[Exception | None]:
    """Do the pieces and return what each one raised."""
    errors: list[Exception | None] = []
    for function, arguments in pieces:
        try:
            function(*arguments)
            errors.append(None)
        except Exception as error:
            errors.append(error)
    return errors


def _work(sender: Connection, parent: int, pieces: list[Piece]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this process
    die_with_parent(signal.SIGKILL, parent=parent)
    gc.disable()  # it would touch, and so copy, all of the parent's memory
    sender.send_bytes(pickle.dumps([error and _portable(error) for error in _done(pieces)]))


def _portable(error: Exception) -> Exception:
    """Return an error that pickles: itself, or a RuntimeError in its words."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
