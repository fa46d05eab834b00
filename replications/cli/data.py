"""``fetch``: download and prepare data."""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

from replications import catalogue
from replications.cli.options import add_folders, add_tier, command
from replications.errors import UserError
from replications.planning.knobs import parse_papers
from replications.spec import RunSpec

OWN_KINDS = ("procedural", "embedded")


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(commands, "fetch", fetch, "download, check and prepare data", "fetch --tier standard")
    parser.add_argument("sets", nargs="*", metavar="SET", help="data sets; none: those that tier and papers need")
    add_tier(parser)
    parser.add_argument("--papers", default="all", help="papers, joined by commas (default: %(default)s)")
    add_folders(parser, "data_root", "data_mirror")
    parser.add_argument("--workers", type=_workers, metavar="N", help="processes that prepare (default: all cores)")


def _workers(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,3}", text):
        raise UserError(f"--workers={text}: give a number of processes, 1 or more")
    return int(text)


def fetch(args: argparse.Namespace) -> None:
    """Prepare the sets, each shown with its size and licence before it is fetched."""
    from replications.datasets import registry
    from replications.datasets.prepare import prepare

    papers = parse_papers(args.papers, args.tier)
    keys = args.sets or needed_sets(papers, args.tier)
    for key in keys:
        registry.find_set(key)
    for key in keys:
        about = registry.describe_set(key)
        sizes = [f"{megabytes(about['bytes'])} to download"] if about["bytes"] else []
        sizes.append(f"{megabytes(about['prepared_bytes'])} prepared")
        print(f"{key}: {about['title']} ({about['kind']}; {', '.join(sizes)}; licence: {about['licence']})", flush=True)
        folder = prepare(key, args.data_root, mirror=args.data_mirror, workers=args.workers)
        print(f"{key}: ready in {folder}", flush=True)


def needed_sets(papers: Iterable[str], tier: str) -> list[str]:
    """Return the keys of the sets that some papers' runs need in a tier."""
    return sets_of(catalogue.resolve(address, tier, 0) for address in catalogue.methods_of(papers, tier))


def sets_of(specs: Iterable[RunSpec]) -> list[str]:
    """Return the keys of the sets that some runs need."""
    return sorted({key for spec in specs for key in spec.data.values()})


def prepare_own(keys: Iterable[str], data_root: Path) -> None:
    """Prepare missing sets that come with this package: procedural and embedded ones.

    Downloads happen only by ``fetch``.
    """
    from replications.datasets import registry
    from replications.datasets.arrays import set_path
    from replications.datasets.prepare import prepare

    for key in keys:
        if registry.find_set(key).kind in OWN_KINDS and not set_path(key, data_root).is_dir():
            print(f"{key}: ready in {prepare(key, data_root)}", flush=True)


def megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
