"""``report``, ``judge``, ``verify``, ``cite``, ``compare`` and ``publish``: commands that need only records."""

import argparse
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replications import catalogue, request
from replications.archive import record_files
from replications.cli.options import add_folders, add_portable, add_tier, add_tried, command, folder_type
from replications.errors import UserError
from replications.looks import LOOKS
from replications.planning import judging
from replications.planning.knobs import parse_papers
from replications.records import tier_folder

if TYPE_CHECKING:
    from replications.reporting.results import Records


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(commands, "report", report, "make a tier's tables, plots, verdicts and page", "report --tier mini")
    add_tier(parser)
    parser.add_argument("--papers", default="all", help="papers or tasks, joined by commas (default: %(default)s)")
    add_tried(parser)
    add_portable(parser)
    parser.add_argument("--no-ablations", action="store_true", help="leave the ablation rows out")
    add_folders(parser, "data_root", "results")
    parser.add_argument("--show", action="store_true", help="only print the tables; write no file")

    example = "judge arcface --look 1 --looks 2"
    parser = command(
        commands, "judge", judge, "determine which of a paper's rows need the seeds of the next look", example
    )
    parser.add_argument("paper", metavar="PAPER")
    numbers = range(1, len(LOOKS) + 1)
    parser.add_argument("--look", type=int, choices=numbers, required=True, help="the look that its rows have had")
    parser.add_argument("--looks", type=int, choices=numbers, default=len(LOOKS), help="how many there are to be")
    add_tier(parser)
    add_tried(parser)
    add_portable(parser)
    parser.add_argument("--no-ablations", action="store_true", help="leave the ablation rows out")
    add_folders(parser, "results")

    parser = command(commands, "verify", verify, "recompute every number of a report", "verify --tier mini")
    parser.add_argument(
        "folder", nargs="?", type=folder_type("FOLDER"), help="a published report (default: the tier's)"
    )
    add_tier(parser)
    add_tried(parser)
    add_portable(parser)
    add_folders(parser, "results")

    parser = command(commands, "cite", cite, "print BibTeX of what a tier's tables use", "cite --tier mini")
    parser.add_argument(
        "folder", nargs="?", type=folder_type("FOLDER"), help="a published report (default: the tier's)"
    )
    add_tier(parser)
    add_tried(parser)
    add_portable(parser)
    add_folders(parser, "results")
    parser.add_argument("--suite", action="store_true", help="print CITATION.cff of the suite itself instead")

    parser = command(
        commands,
        "compare",
        compare,
        "compare the records of two folders: two machines, versions or devices",
        "compare results/mini ../other/results/mini",
    )
    parser.add_argument("first", type=folder_type("FOLDER"), metavar="FOLDER")
    parser.add_argument("second", type=folder_type("FOLDER"), metavar="FOLDER")

    parser = command(
        commands,
        "publish",
        publish,
        "copy a tier's records and tables to results/published and regenerate the README's and docs' sections",
        "publish --tier standard --name first-gpu",
    )
    add_tier(parser)
    parser.add_argument("--papers", help="only these papers or tasks, joined by commas (default: the tier's report)")
    add_tried(parser)
    add_portable(parser)
    add_folders(parser, "data_root", "results")
    parser.add_argument("--name", help="of the publication (default: the date of its last record)")
    parser.add_argument("--readme", action="store_true", help="only regenerate the files of all publications")
    parser.add_argument(
        "--speeds",
        metavar="NAME",
        help="publish only the speeds on random data (`throughput --synthetic`), of all tiers",
    )


def report(args: argparse.Namespace) -> None:
    """Make the report (or only show it), and print leaderboard, verdicts and paths."""
    from replications.datasets import registry
    from replications.datasets.arrays import open_set
    from replications.reporting.report import build, derive, papers_on_page, read_manifest
    from replications.reporting.tables import stamp
    from replications.reporting.terminal import print_report

    folder = tier_folder(args.results, catalogue.tier_config(args.tier).name, args.tried, args.portable)
    papers = catalogue.papers()
    selected = parse_papers(args.papers, args.tier)
    if next(record_files(folder), None) is None:
        raise UserError(f"no record below {folder}: {_maker(args)} makes them")

    def about(keys: Collection[str]) -> dict[str, Any]:
        methods = catalogue.methods_of(keys, args.tier, not args.no_ablations)
        return {"methods": methods, "selected": list(keys), "seeds": None}

    asked, problems = about(selected), []
    if not args.show:
        on_page = {*selected, *papers_on_page(folder, papers)}
        build(
            folder,
            args.tier,
            papers,
            deviations=_deviations(papers),
            describe_set=registry.describe_set,
            open_arrays=lambda key: open_set(key, args.data_root).arrays,
            problems=problems,
            **about([key for key in papers if key in on_page]),
        )
    elif manifest := read_manifest(folder):
        asked = {key: manifest[key] for key in asked}
    records, boards, verdicts, result = derive(folder, args.tier, papers, **asked)
    files = [folder / name for name in (read_manifest(folder) or {"files": ()})["files"]]
    problems = [*(records.problems if args.show else problems), *_outdated(records)]
    print_report(boards, verdicts, problems, _shown(files), stamp=stamp(args.tier, result))


def judge(args: argparse.Namespace) -> None:
    """Judge a paper after a look and write which rows take the next look."""
    folder = tier_folder(args.results, args.tier, args.tried, args.portable)
    key = catalogue.find_paper(args.paper).key
    have = dict.fromkeys(catalogue.methods_of([key], args.tier, not args.no_ablations), LOOKS[0])
    if args.look > 1:  # other papers' claims on the same rows do not matter here
        have |= judging.seeds_after(judging.place(folder, key, args.look - 1))
    judged = judging.judge(folder, args.tier, key, have, args.look, args.looks)
    judging.write(judged, judging.place(folder, key, args.look))
    print(judged.line(args.looks))


def _deviations(papers: Iterable[str]) -> dict[str, dict[int, str]]:
    return {key: catalogue.deviations(key) for key in papers}


def _shown(files: Iterable[Path]) -> list[Path]:
    """Return the files to open first: the page and the readable tables. The page links the rest."""
    return [path for path in files if path.name == "index.html" or path.suffix in (".md", ".bib")]


def _outdated(records: "Records") -> list[str]:
    """Return warnings about records whose code, data or configuration differs from the current one."""
    from replications.running import Fingerprints, fingerprints

    found = []
    known: dict[str, Fingerprints] = {}  # code and data are the same for all seeds of a method
    for address, runs in sorted(records.runs.items()):
        other = []
        for seed, record in sorted(runs.items()):
            try:
                spec = request.resolve(address, records.tier, seed, record.spec.changes, record.spec.portable)
                method = spec.model_copy(update={"seed": 0}).canonical_json()
                if method not in known:
                    known[method] = fingerprints(spec)
                now = known[method].with_seed_of(spec).run
            except UserError:
                now = None
            if now != record.fingerprint:
                other.append(str(seed))
        if other:
            found.append(
                f"{address}: seed {', '.join(other)} does not match the current code, data and configuration: "
                f"run it again"
            )
    return found


def _maker(args: argparse.Namespace) -> str:
    """Return the command that makes the records that a command asked for."""
    if args.tried:
        return "'python -m replications run' with --set"
    return f"'{' '.join(request.workflow(args.tier, portable=args.portable))}'"


def _folder_and_tier(args: argparse.Namespace) -> tuple[Path, str]:
    """Return the given folder with its report's tier, or the tier's own folder."""
    from replications.reporting.report import read_manifest

    folder = args.folder or tier_folder(args.results, args.tier, args.tried, args.portable)
    return folder, ((args.folder and read_manifest(folder)) or {"tier": args.tier})["tier"]


def verify(args: argparse.Namespace) -> int:
    """Print each number that does not follow from the records; the exit code is 1 if there is any."""
    from replications.reporting import verify as check

    folder, tier = _folder_and_tier(args)
    papers = catalogue.papers()
    wrong = check.verify(folder, tier, papers, deviations=_deviations(papers))
    print("\n".join(wrong) or f"every number in {folder} follows from its records")
    return int(bool(wrong))


def cite(args: argparse.Namespace) -> None:
    """Print BibTeX of papers, data and software behind the tables."""
    from replications.datasets.registry import describe_set
    from replications.reporting.citation import bibtex, citation_cff
    from replications.reporting.results import read_results

    if args.suite:
        print(citation_cff(), end="")
        return
    papers = catalogue.papers()
    folder, tier = _folder_and_tier(args)
    records = read_results(folder, tier, papers, methods=())
    if not records.runs:
        raise UserError(f"no record below {folder}: {_maker(args)} makes them")
    print(bibtex(records, papers, describe_set), end="")


def compare(args: argparse.Namespace) -> None:
    """Print how metrics and speeds of two folders differ."""
    from replications.reporting import compare as comparison
    from replications.reporting.formats import to_markdown

    found = comparison.compare(args.first, args.second, catalogue.papers())
    print(to_markdown(comparison.comparison_tables(found)), end="")


def publish(args: argparse.Namespace) -> None:
    """Publish a report; regenerate the sections of README.md and docs/ if they are on that folder of publications."""
    from replications.cli import readme
    from replications.reporting import publications
    from replications.reporting.publish import publish as copy
    from replications.reporting.publish import publish_part
    from replications.reporting.speeds import publish_speeds

    published, papers = args.results / "published", catalogue.papers()
    if args.speeds:
        print(publish_speeds(args.results, published, args.speeds))
    elif not args.readme:
        folder = tier_folder(args.results, args.tier, args.tried, args.portable)
        given = {"name": args.name, "deviations": _deviations(papers)}
        if args.papers:
            from replications.datasets.arrays import open_set

            selected = parse_papers(args.papers, args.tier)
            given |= {"tier": args.tier, "selected": selected, "methods": catalogue.methods_of(selected, args.tier)}
            given |= {"open_arrays": lambda key: open_set(key, args.data_root).arrays}
        print((publish_part if args.papers else copy)(folder, published, papers, **given))
    publications.update(published, papers)
    if published.resolve() == readme.PUBLISHED.resolve():
        for path in readme.update(published):
            print(path.relative_to(readme.ROOT))
