"""Processes in which nothing has run: each piece of work in a fresh one, while importing is paid for once.

A fork server starts a *host*, the host imports what the pieces of work share, and forks a process for each of them.
Nothing but imports happens in server and host, so what is forked inherits no heap of other work, no thread pool, no
autotuned kernel and no CUDA context. This module does not import torch.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

from replications.measurement.process import die_with_parent


class ProcessEnded(Exception):
    """A process ended without an answer. `exit_code` is its own, negative for a signal."""

    def __init__(self, exit_code: int | None):
        super().__init__(f"the process ended with exit code {exit_code}")
        self.exit_code = exit_code


class Host:
    """Calls functions in fresh processes that share the modules named `imports`; a context that ends them all.

    The fork server has `preload` imported, if it is this call that starts the server. A module that cannot be imported
    is left to the work, which will meet the error itself. The host starts at the first call, and again at the next
    call where it has ended.
    """

    def __init__(self, imports: Sequence[str] = (), preload: Sequence[str] = ()):
        self._imports, self._preload = tuple(imports), tuple(preload)
        self._process: Any = None
        self._requests: Connection | None = None

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_) -> None:
        self._end()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `function` returns in a separate process; both and the arguments must pickle.

        Raises ProcessEnded where the process, or the host with it, ends without an answer; so does an exception in
        the function, whose traceback goes to stderr.
        """
        if self._process is None or not self._process.is_alive():
            self._start()
        answered = False
        try:
            self._requests.send_bytes(ForkingPickler.dumps((function, arguments)))
            exit_code, answer = self._requests.recv()
            answered = True
        except (EOFError, OSError):
            self._process.join()
            raise ProcessEnded(self._process.exitcode) from None
        finally:
            if not answered:
                self._end()  # what it still does or says belongs to no call
        if exit_code is not None:
            raise ProcessEnded(exit_code)
        return ForkingPickler.loads(answer)

    def _start(self) -> None:
        self._end()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(self._preload))
        self._requests, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, (*self._preload, *self._imports)), name="host")
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()  # its child goes with it
            self._process.join()
            self._requests.close()
            self._process = self._requests = None


def _serve(requests: Connection, imports: Sequence[str]) -> None:
    """Be a host: fork a process for each request, and answer with its exit code and answer, one of them None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked is interrupted too, and ends this process
    die_with_parent(signal.SIGKILL, follow=False)  # no thread where processes are forked
    for name in imports:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    # The pipe ends with whoever asks.
    with contextlib.suppress(EOFError, OSError):
        while True:
            requests.send(_fork(requests, requests.recv_bytes()))


def _fork(requests: Connection, request: bytes) -> tuple[int | None, bytes | None]:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(requests, sender, os.getpid(), request), name="fresh")
    child.start()
    sender.close()
    try:
        if requests in wait([requests, receiver]):
            raise EOFError  # nobody asks twice before an answer: the pipe has ended
        try:
            return None, receiver.recv_bytes()
        except (EOFError, OSError):
            child.join()
            return child.exitcode, None
    finally:
        child.kill()
        child.join()
        receiver.close()


def _work(requests: Connection, sender: Connection, host: int, request: bytes) -> None:
    """Do one piece of work in a process that the host has forked; pickles are opened here, not in the host."""
    die_with_parent(signal.SIGKILL, parent=host)
    requests.close()
    function, arguments = ForkingPickler.loads(request)
    sender.send_bytes(ForkingPickler.dumps(function(*arguments)))
