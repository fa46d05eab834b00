"""``describe`` and ``check``: show and validate parts of the catalogue, without running anything."""

import argparse
import ast
from typing import Any

import yaml

from replications import catalogue
from replications.cli.listing import comparison
from replications.cli.options import add_tier, command
from replications.errors import UserError, nearest
from replications.planning.check import problems, refuse
from replications.spec import TIERS, Claim, Paper


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "describe",
        describe,
        "show a paper, method, claim, data set or task in full",
        "describe arcface/softmax --tier standard",
    )
    parser.add_argument("name", metavar="NAME", help="a paper, paper/method, paper/claim, data set or task")
    add_tier(parser)
    parser = command(
        commands,
        "check",
        check,
        "validate papers: claims, methods, metrics, deviations, functions",
        "check arcface",
    )
    parser.add_argument("paper", nargs="?", metavar="PAPER", help="none: all of them")


def check(args: argparse.Namespace) -> int:
    """Print the problems of one paper, or of all, one per line; the exit code is 1 if there are any."""
    papers = catalogue.read_papers()
    if args.paper is not None and args.paper not in papers:
        raise UserError(f"unknown paper '{args.paper}'{nearest(args.paper, papers)}")
    keys = papers if args.paper is None else (args.paper,)
    wrong = [line for line in catalogue.problems(papers) if line.startswith(tuple(f"papers/{key}/" for key in keys))]
    wrong = wrong or list(problems(papers, keys))
    claims = sum(len(papers[key].claims) for key in keys)
    print("\n".join(wrong) or f"{len(keys)} papers with {claims} claims are in order")
    return int(bool(wrong))


def describe(args: argparse.Namespace) -> None:
    """Print one item in full; raises UserError with the closest match for an unknown name."""
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
    elif args.name in catalogue.tasks():
        print(_describe_task(args.name))
    else:
        raise UserError(f"there is no '{args.name}'{nearest(args.name, _names(papers))}")


def _names(papers: dict[str, Paper]) -> list[str]:
    from replications.datasets import registry

    inside = [f"{key}/{name}" for key, paper in papers.items() for name in (*paper.methods, *_claims_by_id(paper))]
    return [*papers, *inside, *registry.load().sets, *catalogue.tasks()]


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
        "claims": {claim.id: f"{claim.statement} ({comparison(claim)})" for claim in paper.claims},
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
    about["compares"] = comparison(claim)
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
