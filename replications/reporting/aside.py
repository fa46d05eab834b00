"""Work that goes on beside this process, in copies of it: for what takes long and only leaves files behind.

The copies are forked when the work is at hand, so they see all there is here and nothing needs to pickle. With one
processor, and where forking is unsafe (other systems than Linux), the work is done here and at once.
"""

import contextlib
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

    What a piece of work raises is raised here: at a later `do` or at the end, and of several errors that of the piece
    that was asked for first. Nothing is left running then.
    """

    def __init__(self, processes: int | None = None):
        if processes is None:
            processes = cpu_count() if sys.platform == "linux" else 1
        self._processes = processes
        self._waiting: list[Piece] = []
        self._started: list[tuple[Any, Connection]] = []  # in the order asked for

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
            function(*arguments)
            return
        self._waiting.append((function, arguments))
        if len(self._waiting) >= BATCH:
            self._wait()
        if len(self._going()) < self._processes:
            self._start(BATCH)

    def _going(self) -> list[Connection]:
        return [receiver for _, receiver in self._started if not receiver.poll()]

    def _wait(self) -> None:
        """Wait until another process may start."""
        while len(going := self._going()) >= self._processes:
            wait(going)

    def _start(self, count: int) -> None:
        while self._started and self._started[0][1].poll():
            self._finish_first()
        pieces, self._waiting = self._waiting[:count], self._waiting[count:]
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(sender, os.getpid(), pieces))
        process.start()
        sender.close()
        self._started.append((process, receiver))

    def _finish_first(self) -> None:
        process, receiver = self._started[0]
        try:
            error = pickle.loads(receiver.recv_bytes())
        except EOFError:
            process.join()
            error = RuntimeError(f"a process ended with exit code {process.exitcode}")
        process.join()
        receiver.close()
        del self._started[0]
        if error is not None:
            self._stop()  # what was asked for later is of no use
            raise error

    def _stop(self) -> None:
        for process, receiver in self._started:
            process.kill()
            process.join()
            receiver.close()
        self._started.clear()
        self._waiting.clear()


def _work(sender: Connection, parent: int, pieces: list[Piece]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this process
    die_with_parent(signal.SIGKILL, parent=parent)
    gc.disable()  # it would touch, and so copy, all of the parent's memory
    error = None
    try:
        for function, arguments in pieces:
            function(*arguments)
    except Exception as raised:
        error = raised
    sender.send_bytes(_pickled(error))


def _pickled(error: Exception | None) -> bytes:
    """Pickle an error with what its traceback says; one that does not survive that becomes a RuntimeError."""
    if error is None:
        return pickle.dumps(None)
    import traceback

    words = "".join(traceback.format_exception(error))
    with contextlib.suppress(Exception):
        error.add_note(f"in a process aside:\n{words}")
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
        return pickled
    return pickle.dumps(RuntimeError(words))
