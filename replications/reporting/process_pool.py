"""A pool of forked processes, for long work that only writes files.

Each child is forked when a call is submitted, so it sees the parent's objects and no argument needs to pickle. On one
processor, and where forking is unsafe (systems other than Linux), calls run at once in this process.
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

BATCH = 4  # calls per child when calls are submitted faster than they finish: forking is expensive
Call = tuple[Callable[..., Any], tuple[Any, ...]]


class ForkPool:
    """Runs calls in up to `processes` child processes at a time; leaving the context waits for all of them.

    If a call raises, ``on_error(error, *arguments)`` is called in this process, and the other calls still run. If a
    child dies, each of its calls is run again in a separate process, so calls must be safe to repeat.
    """

    def __init__(self, on_error: Callable[..., None], processes: int | None = None):
        if processes is None:
            processes = cpu_count() if sys.platform == "linux" else 1
        self._on_error, self._processes = on_error, processes
        self._waiting: list[Call] = []
        self._started: list[tuple[Any, Connection, list[Call]]] = []  # in order of submission

    def __enter__(self) -> "ForkPool":
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

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Queue ``function(*arguments)``; its return value is discarded. Blocks while the queue is full."""
        if self._processes < 2:
            self._report([(function, arguments)], _run_all([(function, arguments)]))
            return
        self._waiting.append((function, arguments))
        if len(self._waiting) >= BATCH:
            self._wait()
        if len(self._running()) < self._processes:
            self._start(BATCH)

    def _running(self) -> list[Connection]:
        return [receiver for _, receiver, _ in self._started if not receiver.poll()]

    def _wait(self) -> None:
        """Wait until another child may start."""
        while len(running := self._running()) >= self._processes:
            wait(running)

    def _start(self, count: int) -> None:
        while self._started and self._started[0][1].poll():
            self._finish_first()
        calls, self._waiting = self._waiting[:count], self._waiting[count:]
        try:
            self._started.append((*_fork(calls), calls))
        except OSError:  # the system refuses another process
            self._report(calls, _run_all(calls))

    def _finish_first(self) -> None:
        errors = _errors_of(*self._started[0])
        calls = self._started.pop(0)[2]
        if errors is None:  # the child died during one of the calls
            errors = [_run_alone(call) for call in calls]
        self._report(calls, errors)

    def _report(self, calls: list[Call], errors: list[Exception | None]) -> None:
        for (_, arguments), error in zip(calls, errors, strict=True):
            if error is not None:
                self._on_error(error, *arguments)

    def _stop(self) -> None:
        for process, receiver, _ in self._started:
            process.kill()
            process.join()
            receiver.close()
        self._started.clear()
        self._waiting.clear()


def _fork(calls: list[Call]) -> tuple[Any, Connection]:
    """Fork a child that runs the calls; return it, and the connection over which it sends their errors."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, os.getpid(), calls))
    process.start()
    sender.close()
    return process, receiver


def _errors_of(process: Any, receiver: Connection, calls: list[Call]) -> list[Exception | None] | None:
    """Wait for a child and return the exception of each call, or None if it died before it sent them."""
    try:
        errors = pickle.loads(receiver.recv_bytes())
    except (EOFError, OSError):
        errors = None
    process.join()
    receiver.close()
    return errors


def _run_alone(call: Call) -> Exception | None:
    """Run one call in a separate child; return its exception, or an error if the child died."""
    try:
        process, receiver = _fork([call])
    except OSError as error:
        return error
    try:
        errors = _errors_of(process, receiver, [call])
    finally:
        process.kill()  # in case this process is interrupted
    return errors[0] if errors else RuntimeError(f"a process ended with exit code {process.exitcode}")


def _run_all(calls: list[Call]) -> list[Exception | None]:
    """Run the calls and return the exception of each, None for those that succeeded."""
    errors: list[Exception | None] = []
    for function, arguments in calls:
        try:
            function(*arguments)
            errors.append(None)
        except Exception as error:
            errors.append(error)
    return errors


def _child(sender: Connection, parent: int, calls: list[Call]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and kills its children
    die_with_parent(signal.SIGKILL, parent=parent)
    gc.disable()  # a collection would copy all pages of the parent's memory
    sender.send_bytes(pickle.dumps([error and _picklable(error) for error in _run_all(calls)]))


def _picklable(error: Exception) -> Exception:
    """Return the error itself if it pickles, else a RuntimeError with its message."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
