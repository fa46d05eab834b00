"""SIGINT and SIGTERM as a request that the loop obeys at its next safe point."""

import signal
import threading
from types import FrameType

from replications.errors import RunFailure


class Interruption:
    """Within the block, Ctrl-C and SIGTERM set `requested` to the signal's name instead of ending the process.

    Where `immediate` is true (validation: nothing to lose) they raise KeyboardInterrupt, and so does a second Ctrl-C
    anywhere. A request that nobody has answered by the end of the block goes to the handlers from before it: no signal
    is lost. Outside the main thread Python has no signals, and the block changes nothing.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self.immediate = False
        self._answered = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.requested is not None and not self._answered and kind is None:
            signal.raise_signal(signal.Signals[self.requested])

    def _handle(self, number: int, frame: FrameType | None) -> None:
        second = self.requested is not None and number == signal.SIGINT
        self.requested = signal.Signals(number).name
        if self.immediate or second:
            raise KeyboardInterrupt

    def failure(self, where: str) -> RunFailure:
        """Return the failure to raise once the checkpoint is written; `where` says stage and step."""
        self._answered = True
        return RunFailure("interrupted", f"{where}: interrupted by {self.requested}; start again to continue")
