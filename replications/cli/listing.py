"""``list``: papers, methods, claims, tasks, tiers and data sets, as tables or JSON."""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from replications import catalogue
from replications.cli.data import megabytes, sets_of
from replications.cli.options import command, tier_name
from replications.errors import UserError, nearest
from replications.looks import LOOKS
from replications.planning.check import refuse
from replications.spec import TIERS, Claim, Paper

Row = dict[str, Any]
JSON = """
--json prints a list of objects, or without KIND an object of such lists by kind. Keys are stable; more may be added:
  papers   paper, title, year, venue, role, task, methods (names), claims (ids)
  methods  method (paper/name), paper, title, role, task, tiers
  claims   claim (paper/id), paper, task, statement, where, subject {method, metric}, reference (the same) or null,
           expected or null, direction, effect, smallest_effect, reported_effect or null, tiers
  tasks    task, title, primary_metric, papers, tiers
  tiers    tier, looks or null, seeds (of the first look), threads, result, description
  data     data_set, title, kind, bytes (to download), prepared_bytes, licence
"""


@dataclass(frozen=True)
class Asked:
    """The filters: papers (`chosen`, if some are named), tiers, and one task or all."""

    papers: dict[str, Paper]
    chosen: bool
    task: str | None
    tiers: tuple[str, ...]

    @property
    def everything(self) -> bool:
        return not self.chosen and self.task is None and self.tiers == TIERS

    def runs(self, address: str) -> list[str]:
        """Return the tiers in which a method is run."""
        return [tier for tier in self.tiers if catalogue.is_in_tier(address, tier)]

    @property
    def methods(self) -> list[str]:
        every = [f"{key}/{name}" for key, paper in self.papers.items() for name in paper.methods]
        return [address for address in every if self.runs(address)]


def add(commands: argparse._SubParsersAction) -> None:
    example = "list methods --paper arcface --tier mini --json"
    parser = command(commands, "list", show_list, f"list {', '.join(KINDS)}", example, more=JSON)
    parser.add_argument("kind", nargs="?", choices=KINDS, metavar="KIND", help=f"{', '.join(KINDS)}; none: all of them")
    parser.add_argument("--paper", metavar="PAPER,...", help="only what belongs to these papers")
    parser.add_argument("--task", help="only what belongs to this task")
    parser.add_argument("--tier", type=tier_name, help=f"only what runs or is tested in this tier: {', '.join(TIERS)}")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs (see below)")


def show_list(args: argparse.Namespace) -> None:
    """Print each kind that is asked for; raises UserError if the catalogue is invalid or a name is unknown."""
    refuse(catalogue.papers())
    asked = _asked(args)
    kinds = [args.kind] if args.kind else list(KINDS)
    rows = {kind: KINDS[kind][0](asked) for kind in kinds}
    if args.json:
        print(json.dumps(rows[args.kind] if args.kind else rows, indent=1, ensure_ascii=False))
        return
    for kind in kinds:
        if not args.kind:
            print(f"\n{kind}\n")
        print(_table(KINDS[kind][1], rows[kind]))


def _asked(args: argparse.Namespace) -> Asked:
    papers = catalogue.papers()
    if args.task is not None:
        catalogue.task_tiers(args.task)
    keys = [key.strip() for key in args.paper.split(",")] if args.paper is not None else list(papers)
    for key in keys:
        if key not in papers:
            raise UserError(f"unknown paper '{key}'{nearest(key, papers)}")
    left = {key: paper for key, paper in papers.items() if key in keys and args.task in (None, paper.task)}
    return Asked(left, args.paper is not None, args.task, (args.tier,) if args.tier else TIERS)


def _table(columns: dict[str, Callable[[Row], Any]], rows: Iterable[Row]) -> str:
    from tabulate import tabulate

    cells = [[cell(row) for cell in columns.values()] for row in rows]
    return tabulate(cells, headers=list(columns), tablefmt="simple", disable_numparse=True)


def _of(name: str) -> Callable[[Row], Any]:
    return lambda row: ", ".join(row[name]) if isinstance(row[name], list) else row[name]


def _columns(*names: str, **more: Callable[[Row], Any]) -> dict[str, Callable[[Row], Any]]:
    return {name: _of(name) for name in names} | more


def _papers(asked: Asked) -> list[Row]:
    run = {address.partition("/")[0] for address in asked.methods}
    return [
        {
            "paper": key,
            "title": paper.title,
            "year": paper.year,
            "venue": paper.venue,
            "role": paper.role,
            "task": paper.task,
            "methods": list(paper.methods),
            "claims": [claim.id for claim in paper.claims],
        }
        for key, paper in asked.papers.items()
        if key in run
    ]


def _methods(asked: Asked) -> list[Row]:
    rows = []
    for address in asked.methods:
        paper, method = catalogue.find_method(address)
        tiers = [tier for tier in TIERS if catalogue.is_in_tier(address, tier)]
        row = {"method": address, "paper": paper.key, "title": method.title, "role": method.role, "task": paper.task}
        rows.append(row | {"tiers": tiers})
    return rows


def _claims(asked: Asked) -> list[Row]:
    kept = ("statement", "where", "subject", "reference", "expected", "direction", "effect", "smallest_effect")
    rows = []
    for key, paper in asked.papers.items():
        for claim in paper.claims:
            if not set(asked.tiers).isdisjoint(claim.tiers):
                about = claim.model_dump(mode="json")
                row = {"claim": f"{key}/{claim.id}", "paper": key, "task": paper.task}
                rows.append(row | {name: about[name] for name in (*kept, "reported_effect", "tiers")})
    return rows


def comparison(claim: Claim) -> str:
    """Return a claim's comparison, as ``a/b accuracy > c/d accuracy``."""
    return _compares(claim.model_dump(mode="json"))


def _compares(claim: Row) -> str:
    sign = {"greater": ">", "less": "<", "equal": "="}[claim["direction"]]
    subject, reference = claim["subject"], claim["reference"]
    other = f"{reference['method']} {reference['metric']}" if reference else f"{claim['expected']:g}"
    return f"{subject['method']} {subject['metric']} {sign} {other}"


def _tasks(asked: Asked) -> list[Row]:
    from replications.tasks.base import find_task

    rows = []
    for key in catalogue.tasks():
        papers = [paper.key for paper in asked.papers.values() if paper.task == key]
        tiers = [tier for tier in TIERS if tier in catalogue.task_tiers(key)]
        wanted = papers if asked.chosen else asked.task in (None, key)  # a new task has no paper yet
        if wanted and not set(asked.tiers).isdisjoint(tiers):
            task = find_task(key)
            about = {"task": key, "title": task.title, "primary_metric": task.primary_metric}
            rows.append(about | {"papers": papers, "tiers": tiers})
    return rows


def _tiers(asked: Asked) -> list[Row]:
    left = {tier for address in asked.methods for tier in asked.runs(address)}
    found = [catalogue.tier_config(name) for name in asked.tiers if name in left or asked.everything]
    return [
        {
            "tier": t.name,
            "looks": t.looks,
            "seeds": t.seeds or LOOKS[0],
            "threads": t.threads,
            "result": t.result,
            "description": t.description,
        }
        for t in found
    ]


def _data(asked: Asked) -> list[Row]:
    from replications.datasets import registry

    keys: Sequence[str] = list(registry.load().sets)
    if not asked.everything:
        specs = (catalogue.resolve(address, tier, 0) for address in asked.methods for tier in asked.runs(address))
        keys = sets_of(specs)
    kept = ("title", "kind", "bytes", "prepared_bytes", "licence")
    return [{"data_set": key} | {name: registry.describe_set(key)[name] for name in kept} for key in keys]


def _size(row: Row) -> str:
    return megabytes(row["bytes"]) if row["bytes"] else "-"


# For each kind, the function that makes its rows, and the columns of its table.
KINDS = {
    "papers": (
        _papers,
        _columns(
            "paper", "year", "title", "role", "task",
            methods=lambda row: len(row["methods"]), claims=lambda row: len(row["claims"]),
        ),
    ),
    "methods": (_methods, _columns("method", "title", "role", "tiers")),
    "claims": (
        _claims,
        _columns("claim", "statement", compares=_compares, tiers=_of("tiers")),
    ),
    "tasks": (_tasks, _columns("task", "papers", "tiers")),
    "tiers": (
        _tiers,
        _columns("tier", looks=lambda row: row["looks"] or "-", seeds=_of("seeds"), description=_of("description")),
    ),
    "data": (
        _data,
        {
            "data set": _of("data_set"),
            "kind": _of("kind"),
            "download": _size,
            "prepared": lambda row: megabytes(row["prepared_bytes"]),
            "licence": _of("licence"),
        },
    ),
}  # fmt: skip
