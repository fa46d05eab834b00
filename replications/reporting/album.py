"""What a task's own pictures are drawn from: one leaderboard's records, and the plot style of each method."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from replications.errors import UserError
from replications.records import RunRecord, run_path
from replications.reporting import style
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.results import Records
from replications.tasks.base import Look, Picture


class TierAlbum:
    """`replications.tasks.base.Album` over the records below ``results/<tier>``."""

    def __init__(
        self,
        board: Leaderboard,
        records: Records,
        results: Path,
        describe_set: Callable[[str], Mapping],
        open_arrays: Callable[[str], Mapping] | None,
    ):
        self.tier, self.width = records.tier, style.WIDTH
        self.addresses = [row.address for row in board.rows]
        self._roles = {row.address: row.role for row in board.rows}
        self._looks = style.looks(self.addresses)
        self._records, self._results = records, results
        self._describe_set, self._open_arrays = describe_set, open_arrays
        self._title = board.title
        self._without_arrays: dict[tuple[str, int], None] = {}  # in order of request
        self._problems: dict[str, None] = {}

    def role(self, address: str) -> str:
        return self._roles[address]

    def look(self, address: str) -> Look:
        return self._looks[address]

    def runs(self, address: str) -> dict[int, RunRecord]:
        return self._records.finished(address)

    def arrays(self, address: str, seed: int) -> Mapping[str, Any]:
        path = run_path(self._results, *address.split("/"), seed).parent / "arrays.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except FileNotFoundError:
            if seed in self.runs(address):
                self._without_arrays[address, seed] = None
        except Exception as error:  # zipfile, zlib and numpy raise errors of many kinds for a damaged file
            short = path.relative_to(self._results).as_posix()
            self._missing(f"{short} is damaged ({type(error).__name__}: {error})")
        return {}

    def kind(self, key: str) -> str:
        try:
            return self._describe_set(key)["kind"]
        except UserError as error:
            self._missing(error)
            return "unknown"

    def open_set(self, key: str) -> Mapping[str, Any] | None:
        if self._open_arrays is None:
            return None
        try:
            return self._open_arrays(key)
        except UserError as error:
            self._missing(error)
        except Exception as error:
            self._missing(f"data set '{key}' cannot be read ({type(error).__name__}: {error})")
        return None

    def _missing(self, reason: object) -> None:
        self._problems[f"pictures of {self._title} are missing: {reason}"] = None

    def problems(self) -> list[str]:
        """Return a line for each item that could not be shown so far."""
        lines = list(self._problems)
        if self._without_arrays:
            (address, seed), *others = self._without_arrays
            more = f", and {len(others)} more" if others else ""
            reason = f"no arrays.npz beside the record of {address}, seed {seed}{more}"
            lines.append(f"pictures of {self._title} are missing: {reason}")
        return lines


def pictures(task: str, album: TierAlbum) -> Iterator[Picture]:
    """Yield the pictures of a task's ``pictures`` module, if it has one."""
    name = f"replications.tasks.{task}.pictures"
    if importlib.util.find_spec(name):
        yield from importlib.import_module(name).draw(album)
