"""Progress: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
PLAIN_LINE_SECONDS = 15.0


def take_any_letter() -> None:
    """Let a terminal or file that is not UTF-8 show '?' for a letter that it lacks, instead of ending the process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


class Progress:
    """A counter of `total` units. `advance` and `describe` are cheap: call them at every step."""

    def __init__(self, label: str, total: float | None, unit: str):
        self.label, self.total, self.unit = label, total, unit
        self.done = 0.0
        self.detail = ""
        self.started = self.last_line = time.monotonic()
        self._bar = self._task = None

    def advance(self, amount: float = 1) -> None:
        self.done += amount
        if self._bar is not None:
            self._bar.update(self._task, advance=amount)
        elif time.monotonic() - self.last_line > PLAIN_LINE_SECONDS:
            self._print_line()

    def describe(self, detail: str) -> None:
        self.detail = detail
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self.label} {detail}")

    def _print_line(self) -> None:
        self.last_line = time.monotonic()
        of_total = f"/{_short(self.total)}" if self.total else ""
        left = ""
        if self.total and self.done:
            seconds = (self.last_line - self.started) * (self.total - self.done) / self.done
            left = f", {seconds:.0f} s left"
        detail = f" {self.detail}" if self.detail else ""
        print(f"{self.label}: {_short(self.done)}{of_total} {self.unit}{left}{detail}", file=sys.stderr, flush=True)


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.1f}{letter}"
    return f"{value:g}"


@contextmanager
def progress(label: str, total: float | None = None, unit: str = "steps", done: float = 0) -> Iterator[Progress]:
    """Show progress of a block that may take more than a few seconds; `done` units are done before it starts."""
    counter = Progress(label, total, unit)
    if not sys.stderr.isatty():
        counter.done = done
        yield counter
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        counter._bar, counter._task = bar, bar.add_task(label, total=total, completed=done)
        counter.done = done
        yield counter


def track(items: Iterable[T], label: str, total: float | None = None, unit: str = "items") -> Iterator[T]:
    """Yield the items while showing how far it is."""
    total = len(items) if total is None and hasattr(items, "__len__") else total
    with progress(label, total, unit) as counter:
        for item in items:
            yield item
            counter.advance()
