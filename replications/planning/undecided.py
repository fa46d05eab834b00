"""The state of a tier: undecided claims with their probabilities of decision, finished runs, and run times."""

import functools
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replications import catalogue, looks, running
from replications.errors import UserError
from replications.measurement.hardware import cpu_model
from replications.planning.campaign import Question, Run
from replications.planning.estimate import published_records, published_seconds
from replications.planning.plan import Plan
from replications.records import RunRecord, read_run, run_path
from replications.reporting import labels
from replications.reporting.predictive import power
from replications.reporting.results import Records, tasks_of
from replications.reporting.statistics import ALPHA
from replications.reporting.verdicts import Verdict, judge
from replications.running.store import PASSING_FAILURES
from replications.spec import Claim

DECIDED = ("reproduced", "contradicted")
SEEDS = range(max(looks.LOOKS))
LEAST_CHANCE = 0.01  # probability of a decision at the last look, below which no run is made
UNKNOWN_SECONDS = 600.0  # of a run, if neither records nor its task give an estimate


@dataclass(frozen=True)
class State:
    """The current state. `took` has the seconds of each finished run, `seconds` the expected time of a run of each row.

    `decided` are verdicts by claim; `hopeless` has the reason why more seeds cannot help a claim.
    """

    questions: tuple[Question, ...]
    took: Mapping[Run, float]
    seconds: Mapping[str, float]
    decided: Mapping[str, str]
    hopeless: Mapping[str, str]

    @functools.cached_property
    def done(self) -> frozenset[Run]:
        return frozenset(self.took)


class Study:
    """The claims of some papers in a tier.

    `shared`: runs share a GPU, so their times are not judged. `pace`: ratio of this machine's run times to the
    published ones, until records of this machine show it.
    """

    def __init__(
        self, plan: Plan, papers: Iterable[str], only: Iterable[str] = (), shared: bool = False, pace: float = 1.0
    ):
        self.plan, self.shared, self.pace = plan, shared, pace
        self.known = catalogue.papers()
        self.tasks = tasks_of(self.known)
        self.selected, only = tuple(papers), set(only)
        tier = plan.knobs.tier
        self.claims: dict[str, Claim] = {
            f"{key}/{claim.id}": claim
            for key in self.selected
            for claim in self.known[key].claims
            if tier in claim.tiers and all(catalogue.is_in_tier(row, tier) for row in _rows(claim))
        }
        self.asked = [name for name in self.claims if not only or name in only]
        self.rows = sorted({row for name in self.claims for row in _rows(self.claims[name])})
        self.reference = {row: published_seconds(plan, row) for row in self.rows}
        self.missing_data: dict[str, str] = {}
        self._read: dict[Path, tuple[tuple, RunRecord | None]] = {}
        self._earlier: dict[str, tuple[float, ...]] | None = None

    def look(self) -> State:
        """Read new and changed records, judge the claims and estimate the undecided ones."""
        runs = {row: {seed: r for seed in SEEDS if (r := self._record(row, seed))} for row in self.rows}
        records = Records(self.plan.knobs.tier, runs={row: found for row, found in runs.items() if found})
        verdicts = {v.address: v for v in judge(records, self.known, self.tasks, True, self.selected)}
        questions, decided, hopeless = [], {}, {}
        for name in self.asked:
            verdict = verdicts[name]
            if verdict.adjusted in DECIDED:
                decided[name] = verdict.adjusted
            elif why := self._why_hopeless(self.claims[name], verdict, runs):
                hopeless[name] = why
            elif (question := self._question(name, verdict, verdicts, runs)).chance[-1] < LEAST_CHANCE:
                hopeless[name] = f"hardly within {len(SEEDS)} seeds at the present estimate"
            else:
                questions.append(question)
        took = {(row, seed): r.cost.total_seconds or 0.0 for row, found in runs.items() for seed, r in found.items()}
        return State(tuple(questions), took, self._seconds(runs), decided, hopeless)

    def other_devices(self, name: str | None, kind: str) -> set[str]:
        """Return other devices (kind, and name if known) with records of the rows: they must not be mixed."""
        found = set()
        for row in self.rows:
            for record in filter(None, (self._record(row, seed) for seed in SEEDS)):
                made = record.provenance
                if made and (made.device_kind != kind or not _alike(made.device, name)):
                    found.add(made.device)
        return found

    def restore(self) -> None:
        """Copy finished runs from the work store to the results folder."""
        for row in self.rows:
            for seed in SEEDS:
                path = run_path(self.plan.folder, *row.split("/"), seed)
                record = self._record(row, seed)
                if record and self._readable(path) is not record:
                    knobs = self.plan.knobs
                    running.restore(self.plan.spec(row, seed), work_root=Path(knobs.work), results=self.plan.folder)

    # -------------------------------------------------------------- records

    def _record(self, row: str, seed: int) -> RunRecord | None:
        """The record of a run with the present code and data: of the results folder, else of the work store."""
        prints = self.plan.fingerprints(row, seed)
        stored = running.work_folder(Path(self.plan.knobs.work), prints) / "run.json"
        for path in (run_path(self.plan.folder, *row.split("/"), seed), stored):
            record = self._readable(path)
            if record and record.fingerprint == prints.run and record.reason not in PASSING_FAILURES:
                return record
        return None

    def _readable(self, path: Path) -> RunRecord | None:
        try:
            status = path.stat()
        except OSError:
            return None
        changed = (status.st_mtime_ns, status.st_size)
        if self._read.get(path, (None,))[0] != changed:
            try:
                self._read[path] = changed, read_run(path)
            except UserError:  # damaged: the run is repeated
                self._read[path] = changed, None
        return self._read[path][1]

    # -------------------------------------------------------------- chances

    def _why_hopeless(self, claim: Claim, verdict: Verdict, runs: dict[str, dict[int, RunRecord]]) -> str:
        """Return why more seeds cannot decide a claim; empty if they can."""
        rows = _rows(claim)
        if lacking := [self.missing_data[row] for row in rows if row in self.missing_data]:
            return lacking[0]
        task = self.tasks[self.known[verdict.paper].task]
        timed = any(labels.metric_of(task, side.metric).timed for side in claim.sides().values())
        if timed and self.shared:
            return "times of runs that share a GPU are not judged"
        done = [{seed for seed in SEEDS if seed in runs[row]} for row in rows]
        level = looks.looks_of(_first(done))
        if level == len(looks.LOOKS):
            return "undecided at the last look"
        failed = [{seed for seed, r in runs[row].items() if r.status == "failed"} for row in rows]
        if len(rows) == 2 and failed[0] ^ failed[1]:
            return "a run failed on one side"
        if level and (verdict.adjusted == "not tested" or claim.evidence == "exact"):
            return verdict.reason or "checked, not sampled"
        if level and (verdict.replication == "folds" or len(set(verdict.values)) == 1):
            return "its effect does not vary with the seed"
        return ""

    def _question(
        self, name: str, verdict: Verdict, verdicts: dict[str, Verdict], runs: dict[str, dict[int, RunRecord]]
    ) -> Question:
        claim = self.claims[name]
        rows = _rows(claim)
        level = looks.looks_of(_first([set(runs[row]) for row in rows]))
        if claim.evidence == "exact":
            return Question(name, rows, (1.0,) * len(looks.LOOKS))
        elsewhere = len(verdict.values) < 2
        effects = self.published_effects(name) if elsewhere else _effects(verdict)
        family = [v for key, v in verdicts.items() if v.paper == verdict.paper and key in self.claims]
        family = [v for v in family if self.claims[v.address].evidence != "exact"]
        alphas = [ALPHA / (len(family) - sum(v.adjusted == word for v in family)) for word in DECIDED]
        chance = power(effects, claim.direction, claim.delta, *alphas, elsewhere=elsewhere)
        past = chance[level - 1] if level else 0.0
        # Published effects are of the same seeds on another machine: an estimate, not a look.
        return Question(name, rows, tuple(max(0.0, value - past) for value in chance))

    def published_effects(self, name: str) -> tuple[float, ...]:
        """A claim's effects in the published records of the tier, if any."""
        if self._earlier is None:
            runs = {row: {r.spec.seed: r for r in published_records(self.plan, row)} for row in self.rows}
            found = Records(self.plan.knobs.tier, runs={row: by_seed for row, by_seed in runs.items() if by_seed})
            judged = judge(found, self.known, self.tasks, True, self.selected)
            self._earlier = {v.address: _effects(v) for v in judged if v.replication == "seeds"}
        effects = self._earlier.get(name, ())
        return effects if len(set(effects)) > 1 else ()

    # -------------------------------------------------------------- costs

    def _seconds(self, runs: dict[str, dict[int, RunRecord]]) -> dict[str, float]:
        """Seconds of a run: from this machine's records, else from published ones scaled to this machine."""
        here, elsewhere = {}, {}
        for row, found in runs.items():
            finished = [r for r in found.values() if r.status == "finished" and r.cost.total_seconds]
            own = [r.cost.total_seconds for r in finished if self._is_alike(r)]
            others = [r.cost.total_seconds for r in finished if not self._is_alike(r)]
            if own:
                here[row] = statistics.median(own)
            reference = self.reference[row] or (statistics.median(others) if others else None)
            if reference is not None:
                elsewhere[row] = reference
        # Rows that train nothing never use a GPU.
        pace = {row: here[row] / elsewhere[row] for row in here if elsewhere.get(row) and self.plan.spec(row, 0).recipe}
        typical = statistics.median(elsewhere.values()) if elsewhere else UNKNOWN_SECONDS
        return {row: here.get(row) or elsewhere.get(row, typical) * self._pace(row, pace) for row in self.rows}

    def _is_alike(self, record: RunRecord) -> bool:
        """Whether a record's seconds apply here: same processor, and the same sharing of the GPU."""
        shared = self.plan.knobs.runs_per_gpu if self.plan.gpu else 1
        made = record.provenance
        return made is None or (made.cpu == cpu_model() and record.cost.runs_per_gpu == shared)

    def _pace(self, row: str, pace: dict[str, float]) -> float:
        """Ratio of this machine's seconds to the published ones: of the row's task if known, else of all."""
        task = catalogue.find_method(row)[0].task
        alike = [value for other, value in pace.items() if catalogue.find_method(other)[0].task == task]
        return statistics.median(alike or pace.values() or [self.pace])


def _alike(device: str, name: str | None) -> bool:
    """Whether two names may be of the same GPU model: CUDA's and the driver's can differ by a prefix."""
    return name is None or device in name or name in device


def _rows(claim: Claim) -> tuple[str, ...]:
    """The methods that a claim compares, without duplicates."""
    return tuple(dict.fromkeys(side.method for side in claim.sides().values()))


def _first(done: list[set[int]]) -> int:
    """How many seeds from 0 on all rows have."""
    return next(seed for seed in range(len(SEEDS) + 1) if not all(seed in own for own in done))


def _effects(verdict: Verdict) -> tuple[float, ...]:
    """Paired effects by seed as they are judged: logarithms of a ratio."""
    values = np.array(verdict.values, dtype=float)
    return tuple((np.log(values) if verdict.effect_kind == "ratio" else values).tolist())
