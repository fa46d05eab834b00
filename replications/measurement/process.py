"""Processes that end with their parent, and signals that unwind the stack.

A workflow engine that is killed outright cannot tell its jobs. Each job therefore asks the kernel to be notified of its
parent's death, so that no training continues unseen with the device and the locks in hand.
"""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator

PR_SET_PDEATHSIG = 1


def die_with_parent(
    death_signal: signal.Signals = signal.SIGTERM, parent: int | None = None, *, follow: bool = True
) -> None:
    """Have this process end when its parent does, however that happens.

    On Linux the kernel sends `death_signal` when the *thread* that started this process ends. `parent` is the process
    id the parent gave of itself: where it is another by now, the parent died before the request and this process ends
    at once. Without it only a parent that dies during the call is noticed. A process that multiprocessing started has
    a pipe to the process that asked for it, which a thread watches too, since its parent may be a fork server that
    lives on (not without `follow`, for a process that forks and watches its own pipe). Elsewhere only that pipe
    is watched: macOS has no such request.
    """
    if sys.platform == "linux":
        expected = os.getppid() if parent is None else parent
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
        # The request covers deaths from now on. An orphan has been given another parent already.
        if os.getppid() != expected:
            os.kill(os.getpid(), death_signal)
    asker = multiprocessing.parent_process()
    if asker is not None and follow:
        watch = threading.Thread(target=_follow, args=(asker.sentinel, death_signal), name="parent", daemon=True)
        watch.start()


def _follow(sentinel: int, death_signal: signal.Signals) -> None:
    multiprocessing.connection.wait([sentinel])
    os.kill(os.getpid(), death_signal)


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM within a block, so that both ways of stopping a run unwind the same way.

    Only the main thread may use it. The handler from before is put back at the end.
    """

    def interrupt(*_):
        raise KeyboardInterrupt("stopped by SIGTERM")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
