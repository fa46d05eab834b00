"""The plan of a request: methods, runs, prepared sets, and for each job the inputs whose change makes it rerun."""

import functools
import json
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replications import catalogue, request, running
from replications.datasets.arrays import MANIFEST, set_path
from replications.fingerprint import code_fingerprint
from replications.planning import judging
from replications.planning.folders import name_for_snakemake
from replications.planning.knobs import Knobs
from replications.records import run_path, tier_folder
from replications.spec import RunSpec, TierConfig

EVERYTHING = "all"


@dataclass(frozen=True)
class Plan:
    """The jobs of a request, for the Snakefile. Methods are addressed ``paper/method``; paths are text.

    A `selection` is what a snakemake call requests: 'all' (the papers of the knobs), or the papers named as
    targets, joined by '+'. A group of seeds is text too, '0,1,2': what ``replications run --seeds`` takes.
    """

    knobs: Knobs

    @property
    def folder(self) -> Path:
        """The tier's folder of records and tables."""
        return self.knobs.results_of_tier()

    @functools.cached_property
    def outputs(self) -> Path:
        """The tier's folder as Snakemake's rules name it."""
        results = Path(name_for_snakemake(self.knobs.results))
        return tier_folder(results, self.knobs.tier, self.knobs.tried, self.knobs.portable)

    @functools.cached_property
    def data(self) -> str:
        """The folder of data as Snakemake's rules name it."""
        return name_for_snakemake(self.knobs.data_root)

    @property
    def page(self) -> str:
        return str(self.outputs / "index.html")

    @property
    def tier(self) -> TierConfig:
        return catalogue.tier_config(self.knobs.tier)

    @property
    def threads(self) -> int:
        """CPU threads of a run."""
        return request.threads(self.knobs.tier, self.knobs.set)

    @property
    def gpu(self) -> int:
        """Slots of a GPU that a run asks for; the profile's limit makes it none on machines without a GPU."""
        return int(self.knobs.device.startswith("cuda") or (self.knobs.device == "auto" and self.tier.accelerator))

    @property
    def whole_gpu(self) -> int:
        """Slots that a job with exclusive use of a GPU asks for: all slots of one GPU."""
        return self.gpu * self.knobs.runs_per_gpu

    @functools.cached_property
    def papers(self) -> tuple[str, ...]:
        """All papers with a method in the tier."""
        return tuple(key for key in catalogue.papers() if catalogue.methods_of([key], self.knobs.tier))

    @functools.cached_property
    def targets(self) -> dict[str, tuple[str, ...]]:
        """Target names and their papers: papers with a method in the tier, and tasks."""
        papers = {key: (key,) for key in self.papers}
        tasks: dict[str, tuple[str, ...]] = {}
        for key in papers:
            task = catalogue.find_paper(key).task
            tasks[task] = (*tasks.get(task, ()), key)
        return {**tasks, **papers}

    def selection(self, asked: Iterable[str]) -> str:
        """The selection of the targets on a command line."""
        asked = set(asked)
        papers = {key for target in asked for key in self.targets.get(target, ())}
        return EVERYTHING if EVERYTHING in asked or not papers else "+".join(sorted(papers))

    def papers_of(self, selection: str) -> tuple[str, ...]:
        return self.knobs.papers if selection == EVERYTHING else tuple(selection.split("+"))

    def methods_of(self, selection: str) -> list[str]:
        """The methods that a selection's papers have, and those that their claims compare with."""
        return catalogue.methods_of(self.papers_of(selection), self.knobs.tier, self.knobs.ablations)

    @property
    def seed_groups(self) -> list[str]:
        """The seeds of each pass, in groups that share a process."""
        size = self.tier.seeds_per_process
        return [
            ",".join(map(str, seeds[start : start + size]))
            for seeds in self.knobs.passes
            for start in range(0, len(seeds), size)
        ]

    @staticmethod
    def address(wildcards: Any) -> str:
        return f"{wildcards.paper}/{wildcards.method}"

    def records(self, selection: str) -> list[str]:
        """Paths of the run records of a selection that its first look needs."""
        first = len(self.knobs.passes[0])
        return [record for address in self.methods_of(selection) for record in self._records(address, first)]

    def records_after(self, paper: str, passes: int, judged: Callable[[str, int], str]) -> list[str]:
        """Paths that a paper needs in its first `passes` passes: run records and judgings.

        `judged` returns the path of the judging of a paper after a look; if there is none yet, it does not return.
        """
        have = dict.fromkeys(self.methods_of(paper), len(self.knobs.passes[0]))
        said = []
        for look in range(1, passes if self.open_to(paper) else 1):
            said.append(judged(paper, look))
            after = judging.seeds_after(said[-1])
            if all(after.get(address, 0) <= seeds for address, seeds in have.items()):
                break
            have = {address: max(seeds, after.get(address, 0)) for address, seeds in have.items()}
        return [*said, *(record for address, seeds in have.items() for record in self._records(address, seeds))]

    @property
    def any_judging(self) -> str:
        """Path of a judging, with the wildcards 'paper' and 'look'."""
        return str(judging.place(self.outputs, "{paper}", "{look}"))

    @functools.cache  # noqa: B019
    def open_to(self, paper: str) -> list[str]:
        """Rows that a further look of a paper may need: those that its claims compare in the tier."""
        claims = [claim for claim in catalogue.find_paper(paper).claims if self.knobs.tier in claim.tiers]
        sides = {side.method for claim in claims for side in claim.sides().values()}
        return [address for address in self.methods_of(paper) if address in sides]

    def _records(self, address: str, seeds: int) -> list[str]:
        """Paths of a row's records of its first seeds."""
        return [self.record(address, seed) for seed in self.knobs.seeds[:seeds]]

    def record(self, address: str, seed: int) -> str:
        """Path of a run's record."""
        return str(run_path(self.outputs, *address.split("/"), seed))

    def records_of_group(self, seeds: str) -> list[str]:
        """Paths of the records that one process leaves, with the wildcards 'paper' and 'method'."""
        return [self.record("{paper}/{method}", int(seed)) for seed in seeds.split(",")]

    @functools.cache  # noqa: B019 (a process has one plan)
    def spec(self, address: str, seed: int) -> RunSpec:
        return self._spec(address).model_copy(update={"seed": seed})

    @functools.cache  # noqa: B019
    def _spec(self, address: str) -> RunSpec:
        return request.resolve(address, self.knobs.tier, self.knobs.seeds[0], self.knobs.set, self.knobs.portable)

    @functools.cache  # noqa: B019
    def fingerprints(self, address: str, seed: int) -> running.Fingerprints:
        return self._fingerprints(address).with_seed_of(self.spec(address, seed))

    @functools.cache  # noqa: B019
    def _fingerprints(self, address: str) -> running.Fingerprints:
        """Fingerprints for one seed: those of code and data, which are slow to compute, are the same for all seeds."""
        return running.fingerprints(self._spec(address))

    def run_meaning(self, address: str, seeds: str) -> str:
        """The inputs of a group's records, as text: the records are made again if it changes.

        Runs of a row differ only in the seed, so one fingerprint covers all. Changes set by hand are included, because
        records and tables show them.
        """
        return json.dumps({"row": self._fingerprints(address).run, "seeds": seeds, "set": self.knobs.set})

    @functools.cache  # noqa: B019
    def selection_meaning(self, selection: str) -> str:
        """The inputs of a selection's records, independent of the seeds."""
        return json.dumps({address: self._fingerprints(address).run for address in self.methods_of(selection)})

    @functools.cache  # noqa: B019
    def judging_meaning(self, paper: str) -> str:
        """The inputs of a paper's judging: records, claims, and the code that judges them."""
        about = catalogue.find_paper(paper)
        code = _judging_code(about.task)
        claims = [claim.model_dump_json() for claim in about.claims]
        return f"{code} {self.knobs.looks} {claims} {self.selection_meaning(paper)}"

    def report_meaning(self, selection: str) -> str:
        """The inputs of a selection's report: records, and the code that makes tables from them."""
        code = code_fingerprint(sorted((catalogue.PACKAGE / "reporting").rglob("*.py")))
        return f"{code} {self.selection_meaning(selection)}"

    def speeds(self, selection: str) -> list[str]:
        """Path of the list of a selection's speed measurements, if they are requested."""
        return [str(self.outputs / "throughput" / f"{selection}.json")] if self.knobs.throughput else []

    def sets(self, addresses: Iterable[str]) -> list[str]:
        """Paths of the markers of some methods' prepared sets."""
        keys = {key for address in addresses for key in self.spec(address, self.knobs.seeds[0]).data.values()}
        return [self._set(key) for key in sorted(keys)]

    @functools.cache  # noqa: B019
    def _set(self, key: str) -> str:
        return str(set_path(key, Path(self.data)) / MANIFEST)

    @property
    def any_set(self) -> str:
        """Path of a prepared set's marker, with the wildcards 'dataset' and 'fingerprint'."""
        return str(Path(self.data) / "prepared" / "{dataset}-{fingerprint}" / MANIFEST)

    def shell(self, command: str, *knobs: str) -> str:
        """The shell line of a job: a subcommand with the named knobs, which can be copied from a log.

        ``exec`` makes the job a direct child of snakemake, so that it ends when snakemake is killed. Snakemake formats
        `command`, which quotes its wildcards with ``:q``; the knobs are quoted here.
        """
        quoted = shlex.join(self.options(*knobs)).replace("{", "{{").replace("}", "}}")
        return f"exec python -m replications {command} {quoted} > {{log:q}} 2>&1"

    def options(self, *knobs: str) -> list[str]:
        """The command-line options that pass the named knobs to a subcommand."""
        words = []
        for name in knobs:
            value = getattr(self.knobs, name)
            option = f"--{name.replace('_', '-')}"
            if name in ("tried", "portable"):
                words += [option] if value else []
            elif name == "ablations":
                words += [] if value else ["--no-ablations"]
            elif name == "runs_per_gpu":
                words += [f"{option}={value}"] if value > 1 else []
            elif name == "set":
                words += [f"{option}={change}" for change in value]
            elif value is not None:
                words.append(f"{option}={_not_home(str(value))}")
        return words


@functools.cache
def _judging_code(task: str) -> str:
    """Fingerprint of the code that a judging reaches: the procedure, and the task's table of metrics."""
    return code_fingerprint([catalogue.PACKAGE / "reporting" / "need.py", catalogue.TASKS / task / "__init__.py"])


def _not_home(value: str) -> str:
    """A value whose ``~`` is not expanded a second time."""
    return f"./{value}" if value.startswith("~") else value
