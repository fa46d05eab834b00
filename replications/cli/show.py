"""``list``, ``describe`` and ``check``: what there is, and whether it is in order, without running anything."""

import argparse
import ast
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from replications import catalogue
from replications.cli.data import megabytes, needed_sets
from replications.cli.options import add_tier, command, tier_name
from replications.errors import UserError, nearest
from replications.planning.check import problems, refuse
from replications.spec import TIERS, Claim, Paper

KINDS = ("papers", "methods", "claims", "tasks", "tiers", "data")


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(commands, "list", show_list, f"list {', '.join(KINDS)}", "list methods --tier mini")
    parser.add_argument("kind", nargs="?", choices=KINDS, help="none: all of them")
    parser.add_argument("--tier", type=tier_name, help=f"only what is run or tested in it: {', '.join(TIERS)}")
    parser = command(
        commands,
        "describe",
        describe,
        "say what a paper, method, claim, data set or task is",
        "describe arcface/softmax --tier standard",
    )
    parser.add_argument("name", metavar="NAME", help="a paper, paper/method, paper/claim, data set or task")
    add_tier(parser)
    parser = command(
        commands,
        "check",
        check,
        "check that papers are in order: claims, methods, metrics, deviations, functions",
        "check arcface",
    )
    parser.add_argument("paper", nargs="?", metavar="PAPER", help="none: all of them")


def check(args: argparse.Namespace) -> int:
    """Print what is wrong with a paper, or with all, a line each; the exit code says whether there is anything."""
    papers = catalogue.read_papers()
    if args.paper is not None and args.paper not in papers:
        raise UserError(f"unknown paper '{args.paper}'{nearest(args.paper, papers)}")
    keys = papers if args.paper is None else (args.paper,)
    wrong = [line for line in catalogue.problems(papers) if line.startswith(tuple(f"papers/{key}/" for key in keys))]
    wrong = wrong or list(problems(papers, keys))
    claims = sum(len(papers[key].claims) for key in keys)
    print("\n".join(wrong) or f"{len(keys)} papers with {claims} claims are in order")
    return int(bool(wrong))


def show_list(args: argparse.Namespace) -> None:
    """Print a table of each kind that is asked for; raises UserError where the catalogue is not in order."""
    refuse(catalogue.papers())
    tables = {
        "papers": _papers,
        "methods": _methods,
        "claims": _claims,
        "tasks": _tasks,
        "tiers": _tiers,
        "data": _data,
    }
    for kind in [args.kind] if args.kind else KINDS:
        if not args.kind:
            print(f"\n{kind}\n")
        print(tables[kind]([args.tier] if args.tier else TIERS))


def _table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    from tabulate import tabulate

    return tabulate(list(rows), headers=headers, tablefmt="simple", disable_numparse=True)


def _papers(tiers: Sequence[str]) -> str:
    rows = [
        (key, paper.year, paper.title, paper.role, paper.task, len(paper.methods), len(paper.claims))
        for key, paper in catalogue.papers().items()
        if any(_runs(f"{key}/{name}", tiers) for name in paper.methods)
    ]
    return _table(["paper", "year", "title", "role", "task", "methods", "claims"], rows)


def _methods(tiers: Sequence[str]) -> str:
    rows = [
        (f"{key}/{name}", method.title, method.role, ", ".join(_runs(f"{key}/{name}", TIERS)))
        for key, paper in catalogue.papers().items()
        for name, method in paper.methods.items()
        if _runs(f"{key}/{name}", tiers)
    ]
    return _table(["method", "title", "role", "tiers"], rows)


def _runs(address: str, tiers: Sequence[str]) -> list[str]:
    """Those of the tiers in which a method is run."""
    return [tier for tier in tiers if catalogue.is_in_tier(address, tier)]


def _claims(tiers: Sequence[str]) -> str:
    rows = [
        (f"{key}/{claim.id}", claim.statement, _comparison(claim), ", ".join(claim.tiers))
        for key, paper in catalogue.papers().items()
        for claim in paper.claims
        if set(tiers).intersection(claim.tiers)
    ]
    return _table(["claim", "statement", "compares", "tiers"], rows)


def _comparison(claim: Claim) -> str:
    sign = {"greater": ">", "less": "<", "equal": "="}[claim.direction]
    other = f"{claim.reference.method} {claim.reference.metric}" if claim.reference else f"{claim.expected:g}"
    return f"{claim.subject.method} {claim.subject.metric} {sign} {other}"


def _tasks(tiers: Sequence[str]) -> str:
    rows = []
    for key in sorted({paper.task for paper in catalogue.papers().values()}):
        setups = catalogue.task_tiers(key)
        papers = [paper.key for paper in catalogue.papers().values() if paper.task == key]
        if not set(tiers).isdisjoint(setups):
            rows.append((key, ", ".join(papers), ", ".join(t for t in TIERS if t in setups)))
    return _table(["task", "papers", "tiers"], rows)


def _tiers(tiers: Sequence[str]) -> str:
    found = [catalogue.tier_config(name) for name in tiers]
    return _table(["tier", "seeds", "description"], [(t.name, t.seeds, t.description) for t in found])


def _data(tiers: Sequence[str]) -> str:
    from replications.datasets import registry

    keys = list(registry.load().sets)
    if len(tiers) == 1:
        keys = needed_sets(tuple(catalogue.papers()), tiers[0])
    rows = []
    for key in keys:
        about = registry.describe_set(key)
        download = megabytes(about["bytes"]) if about["bytes"] else "-"
        rows.append((key, about["kind"], download, megabytes(about["prepared_bytes"]), about["licence"]))
    return _table(["data set", "kind", "download", "prepared", "licence"], rows)


def describe(args: argparse.Namespace) -> None:
    """Print one thing in full; raises UserError, with the nearest name, where there is no such thing."""
    from replications.datasets import registry

    papers = catalogue.papers()
    refuse(papers)
    key, slash, name = args.name.partition("/")
    if args.name in papers:
        print(_describe_paper(papers[args.name], args.tier))
    elif slash and key in papers and name in papers[key].methods:
        print(_describe_method(args.name, args.tier))
    elif slash and key in papers and name in _claims_by_id(papers[key]):
        print(_describe_claim(papers[key], _claims_by_id(papers[key])[name]))
    elif args.name in registry.load().sets:
        print(_yaml(registry.describe_set(args.name)))
    elif args.name in {paper.task for paper in papers.values()}:
        print(_describe_task(args.name))
    else:
        raise UserError(f"there is no '{args.name}'{nearest(args.name, _names(papers))}")


def _names(papers: dict[str, Paper]) -> list[str]:
    from replications.datasets import registry

    inside = [f"{key}/{name}" for key, paper in papers.items() for name in (*paper.methods, *_claims_by_id(paper))]
    return [*papers, *inside, *registry.load().sets, *{paper.task for paper in papers.values()}]


def _claims_by_id(paper: Paper) -> dict[str, Claim]:
    return {claim.id: claim for claim in paper.claims}


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110).rstrip()


def _describe_paper(paper: Paper, tier: str) -> str:
    about = {
        "paper": paper.key,
        "title": paper.title,
        "authors": ", ".join(paper.authors),
        "published": f"{paper.venue} {paper.year}" + (f", arXiv {paper.arxiv}" if paper.arxiv else ""),
        "role": paper.role,
        "task": paper.task,
        "methods": {name: method.title for name, method in paper.methods.items()},
        "claims": {claim.id: f"{claim.statement} ({_comparison(claim)})" for claim in paper.claims},
        "deviations": catalogue.deviations(paper.key),
        "reported": [f"{r.metric} {r.value:g} {r.unit}: {r.setting}, on {r.data} ({r.where})" for r in paper.reported],
        "runs in tier " + tier: catalogue.methods_of([paper.key], tier),
    }
    return f"{_yaml({key: value for key, value in about.items() if value})}\n\n{paper.bibtex.strip()}"


def _describe_method(address: str, tier: str) -> str:
    paper, method = catalogue.find_method(address)
    about: dict[str, Any] = {"method": address, "title": method.title, "role": method.role, "why": method.why}
    if catalogue.is_in_tier(address, tier):
        spec = catalogue.resolve(address, tier, 0).model_dump(mode="json")
        about["resolved in tier " + tier] = {
            part: spec[part] for part in ("build", "data", "options", "task_options", "recipe", "threads")
        }
        about["differs from its task in"] = {
            key: f"{theirs} -> {ours}" for key, (theirs, ours) in catalogue.differences(address, tier).items()
        }
    else:
        about["tiers"] = [name for name in TIERS if catalogue.is_in_tier(address, name)]
    about["claims"] = [
        f"{other.key}/{claim.id}: {claim.statement}"
        for other in catalogue.papers().values()
        for claim in other.claims
        if address in (claim.subject.method, claim.reference.method if claim.reference else None)
    ]
    about["deviations of its paper"] = catalogue.deviations(paper.key)
    return _yaml({key: value for key, value in about.items() if value})


def _describe_claim(paper: Paper, claim: Claim) -> str:
    about = {"claim": f"{paper.key}/{claim.id}", **claim.model_dump(mode="json", exclude={"id", "deviations"})}
    numbered = catalogue.deviations(paper.key)
    about["compares"] = _comparison(claim)
    about["deviations that bear on it"] = {number: numbered.get(number, "") for number in claim.deviations}
    return _yaml({key: value for key, value in about.items() if value not in (None, {}, "")})


def _describe_task(name: str) -> str:
    from replications.tasks.base import find_task

    task = find_task(name)
    about = {
        "task": name,
        "title": task.title,
        "primary metric": task.primary_metric,
        "build gets": dict(task.build)
        | {"further": "the options of the method, in paper.yaml, and of the tier, below"},
        "build returns": task.returns.partition(":")[2],
        "metrics": {key: f"{m.title} [{m.unit}]: {m.description}" for key, m in task.metrics.items()},
        "tiers": {tier: setup.model_dump(mode="json") for tier, setup in catalogue.task_tiers(name).items()},
    }
    if not task.returns:
        return _yaml(about)
    path = catalogue.PACKAGE.joinpath(*task.returns.partition(":")[0].split(".")).with_suffix(".py")
    described = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return f"{_yaml(about)}\n\nreplications/{path.relative_to(catalogue.PACKAGE)}: {described}"
