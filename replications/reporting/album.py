"""What a task that draws pictures of its own is shown: one leaderboard's records, and the looks of its methods."""

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
from replications.reporting.load import Records
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

    def role(self, address: str) -> str:
        return self._roles[address]

    def look(self, address: str) -> Look:
        return self._looks[address]

    def runs(self, address: str) -> dict[int, RunRecord]:
        return self._records.finished(address)

    def arrays(self, address: str, seed: int) -> Mapping[str, Any]:
        path = run_path(self._results, *address.split("/"), seed).parent / "arrays.npz"
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)

    def kind(self, key: str) -> str:
        try:
            return self._describe_set(key)["kind"]
        except UserError as error:
            self._records.problems.append(f"a picture is missing: {error}")
            return "unknown"

    def open_set(self, key: str) -> Mapping[str, Any] | None:
        if self._open_arrays is None:
            return None
        try:
            return self._open_arrays(key)
        except UserError as error:
            self._records.problems.append(f"a picture is missing: {error}")
            return None


def pictures(task: str, album: TierAlbum) -> Iterator[Picture]:
    """Yield the pictures that a task draws by itself: none where it has no ``pictures`` module."""
    name = f"replications.tasks.{task}.pictures"
    if importlib.util.find_spec(name):
        yield from importlib.import_module(name).draw(album)
