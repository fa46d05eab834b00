"""Between two looks: judge a paper's claims and choose the rows that take the next look.

A judging writes a small file with the number of seeds of each row; the plan depends on this file alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from replications import catalogue
from replications.errors import UserError
from replications.looks import LOOKS
from replications.records import run_path, write_atomic


@dataclass(frozen=True)
class Judged:
    """How many claims a look tests and decides, and how many seeds each row takes afterwards."""

    look: int
    tested: int
    decided: int
    seeds: dict[str, int]

    @property
    def going_on(self) -> list[str]:
        """The rows that take the next look."""
        more = LOOKS[self.look] if self.look < len(LOOKS) else None
        return [address for address, seeds in self.seeds.items() if seeds == more]

    def line(self, most: int) -> str:
        """Return the message on this judging out of `most` looks."""
        rows = "row goes" if len(self.going_on) == 1 else "rows go"
        then = f"{len(self.going_on)} {rows} on to {LOOKS[self.look]}" if self.going_on else "no row needs more"
        then = then if self.look < most else "that was the last look"
        return f"after {LOOKS[self.look - 1]} seeds {self.decided} of {self.tested} claims are decided; {then}"


def place(folder: Path, paper: str, look: int | str) -> Path:
    """Where the judging of a paper after a look is, below the tier's folder."""
    return Path(folder) / "looks" / f"{paper}-{look}.json"


def seeds_after(path: Path | str) -> dict[str, int]:
    """Return how many seeds each row takes after a judging; raises UserError if its file cannot be read."""
    try:
        return {
            str(address): int(seeds)
            for address, seeds in json.loads(Path(path).read_text(encoding="utf-8"))["seeds"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path} is missing or damaged (delete it and run the same command again)") from None


def write(judged: Judged, path: Path) -> None:
    write_atomic(path, json.dumps(vars(judged), indent=1).encode() + b"\n")


def judge(folder: Path, tier: str, paper: str, have: Mapping[str, int], look: int, most: int) -> Judged:
    """Judge a paper's claims after a look, of at most `most`, by the first `have` seeds of each row.

    A row that stopped at an earlier look and is needed again takes all seeds up to the next look.
    """
    from replications.reporting.need import next_seeds
    from replications.reporting.results import read_results, tasks_of
    from replications.reporting.verdicts import judge as verdicts_of

    papers = catalogue.papers()
    names = {run_path(Path(), *a.split("/"), seed).as_posix() for a, seeds in have.items() for seed in range(seeds)}
    records = read_results(folder, tier, papers, methods=(), names=names)
    verdicts = verdicts_of(records, papers, tasks_of(papers), catalogue.tier_config(tier).result, (paper,))
    needed = next_seeds(verdicts, most) if look < most else {}
    tested = [verdict for verdict in verdicts if verdict.adjusted != "not tested"]
    return Judged(
        look,
        len(tested),
        sum(verdict.adjusted != "inconclusive" for verdict in tested),
        {address: LOOKS[look] if address in needed else seeds for address, seeds in have.items()},
    )


def going_on(folder: Path, tier: str, have: Mapping[str, int], look: int, most: int) -> list[str]:
    """Judge the papers of some rows after a look, print the outcome, and return the rows that take the next look."""
    found: list[str] = []
    for paper in dict.fromkeys(address.partition("/")[0] for address in have):
        own = {address: have[address] for address in catalogue.methods_of([paper], tier) if address in have}
        judged = judge(folder, tier, paper, own, look, most)
        print(f"{paper}: {judged.line(most)}", flush=True)
        found += judged.going_on
    return [address for address in have if address in found]
