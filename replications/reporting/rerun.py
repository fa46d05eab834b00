"""The commands that make the runs of a folder of records again."""

import shlex
from collections.abc import Collection, Iterable
from pathlib import Path

from replications import catalogue, request
from replications.looks import looks_of
from replications.records import RunRecord, tier_folder
from replications.reporting.results import Records

WIDTH = 100  # columns of a line, where a word allows it


def commands(records: Records, targets: Collection[str] | None = None) -> list[str]:
    """Return the commands: one for the rows with the tier's own set-up, one for each set-up changed by hand.

    `targets` are the papers or tasks that were asked for; without them the papers of the records count. Rows that
    differ in their seeds have separate commands.
    """
    plain: dict[tuple[bool, str], dict[str, int]] = {}
    changed: dict[tuple, list[str]] = {}
    for address, runs in sorted(records.runs.items()):
        for setting, seeds in _settings(runs.values()).items():
            changes, portable, device = setting
            if changes:
                changed.setdefault((setting, tuple(seeds)), []).append(address)
            else:
                plain.setdefault((portable, device), {})[address] = len(seeds)
    found = [_snakemake(records.tier, rows, targets, *key) for key, rows in plain.items()]
    return found + [_run(records.tier, rows, seeds, *setting) for (setting, seeds), rows in changed.items()]


def comparison(records: Records, published: Path) -> list[str]:
    """Return the commands that compare the rerun records with those of the publication in the folder `published`."""
    settings = {setting for runs in records.runs.values() for setting in _settings(runs.values())}
    folders = sorted({tier_folder(Path("results"), records.tier, bool(c), portable) for c, portable, _ in settings})
    return [f"python -m replications compare {Path(published).as_posix()} {folder.as_posix()}" for folder in folders]


def checks(records: Records) -> list[str]:
    """Return the commands that recompute every number of the folder of these records, after its tables are made."""
    specs = [record.spec for runs in records.runs.values() for record in runs.values()]
    tried, portable = any(spec.changes for spec in specs), any(spec.portable for spec in specs)
    words = request.options(records.tier, tried, portable)
    return [" ".join(["python -m replications", name, *words]) for name in ["report"] * tried + ["verify"]]


def _settings(runs: Iterable[RunRecord]) -> dict[tuple[tuple[str, ...], bool, str], list[int]]:
    """Return the seeds of a row's runs by changes, portable mode and the device to be named, if any."""
    found: dict[tuple, list[int]] = {}
    for record in sorted(runs, key=lambda one: one.spec.seed):
        spec, about = record.spec, record.provenance
        on_cpu = about is not None and about.device_kind == "cpu"
        named = "cpu" if on_cpu and catalogue.tier_config(spec.tier).accelerator else ""
        found.setdefault((tuple(spec.changes), spec.portable, named), []).append(spec.seed)
    return found


def _snakemake(tier: str, rows: dict[str, int], targets: Collection[str] | None, portable: bool, device: str) -> str:
    own, looks = catalogue.tier_config(tier).looks, looks_of(max(rows.values()))
    config = [f"looks={looks}"] * (own is not None and looks not in (0, own)) + [f"device={device}"] * bool(device)
    asked = sorted(targets) if targets is not None else _targets({row.partition("/")[0] for row in rows}, tier)
    return _lines(request.workflow(tier, asked, *config, portable=portable))


def _targets(papers: set[str], tier: str) -> list[str]:
    """Return the shortest names of some papers: none if all of the tier are among them, whole tasks by their name."""
    of_task: dict[str, set[str]] = {}
    for key in catalogue.papers():
        if catalogue.methods_of([key], tier):
            of_task.setdefault(catalogue.find_paper(key).task, set()).add(key)
    whole = {task for task, keys in of_task.items() if keys <= papers}
    if whole == set(of_task):
        return []
    return sorted(whole) + sorted(papers.difference(*(of_task[task] for task in whole)))


def _run(
    tier: str, rows: list[str], seeds: tuple[int, ...], changes: tuple[str, ...], portable: bool, device: str
) -> str:
    count = len(seeds)
    text = str(count) if seeds == tuple(range(count)) else ",".join(map(str, seeds)) + "," * (count == 1)
    words = ["python -m replications run", *rows, f"--tier {tier}", f"--seeds {text}"]
    words += [f"--device {device}"] * bool(device) + ["--portable"] * portable
    return _lines([*words, *(f"--set {shlex.quote(change)}" for change in changes)])


def _lines(words: Iterable[str]) -> str:
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= WIDTH - 2:  # room for the backslash
            lines[-1] += f" {word}"
        else:
            lines.append(word if not lines else f"    {word}")
    return " \\\n".join(lines)
