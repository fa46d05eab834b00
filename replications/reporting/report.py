"""Make a tier's report from its records: tables, plots, pages, citations. Takes seconds; no training, no network."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath

from replications import catalogue
from replications.archive import record_files
from replications.datasets import registry
from replications.errors import UserError, disk_error
from replications.reporting import citation, formats, frame, site, tables
from replications.reporting.leaderboard import Leaderboard, leaderboards
from replications.reporting.results import Records, read_results, tasks_of
from replications.reporting.temporary import temporary_folder
from replications.reporting.verdicts import Verdict, judge
from replications.spec import Paper
from replications.tasks.base import Task

MANIFEST = "report.json"
RUNS = "runs.csv"
Derived = tuple[Records, list[Leaderboard], list[Verdict], bool]
LOCAL = (".html", RUNS)  # file endings that are not published


def derive(
    results: Path,
    tier: str,
    papers: Mapping[str, Paper],
    *,
    tasks: Mapping[str, Task] | None = None,
    methods: Collection[str] | None = None,
    selected: Sequence[str] | None = None,
    seeds: int | None = None,
) -> Derived:
    """Read the records below `results` (``results/<tier>``) and derive leaderboards and verdicts from them.

    `papers` is the whole catalogue; `selected` are the papers whose claims are judged (default: all),
    `methods` the addresses that should have a row (default: all that run in the tier), `seeds` how many seeds
    each should have. The last value returned is whether the tier gives results.
    """
    tasks = tasks or tasks_of(papers)
    unknown = sorted(set(selected or ()) - set(papers))
    if unknown:
        raise UserError(f"unknown paper '{unknown[0]}'")
    result = catalogue.tier_config(tier).result
    records = read_results(results, tier, papers, methods, seeds)
    boards = leaderboards(records, papers, tasks, result)
    verdicts = judge(records, papers, tasks, result, None if selected is None else tuple(selected))
    return records, boards, verdicts, result


def build(
    results: Path,
    tier: str,
    papers: Mapping[str, Paper],
    *,
    tasks: Mapping[str, Task] | None = None,
    deviations: Mapping[str, Mapping[int, str]] | None = None,
    methods: Collection[str] | None = None,
    selected: Sequence[str] | None = None,
    seeds: int | None = None,
    describe_set: Callable[[str], Mapping] | None = None,
    open_arrays: Callable[[str], Mapping] | None = None,
    problems: list[str] | None = None,
) -> dict[str, Path]:
    """Write the report of a tier into `results` (``results/<tier>``) and return its files by name.

    Arguments as in `derive`; `deviations` are each paper's numbered deviations, `describe_set` is the data
    registry's, and `open_arrays` returns the arrays of a prepared set (without it, pictures of samples are left
    out). Files are written to a temporary folder and moved into place, the page last; files of an earlier report that
    this one does not have are removed. The problems listed on the page are added to `problems`.
    """
    results = Path(results)
    derived = derive(results, tier, papers, tasks=tasks, methods=methods, selected=selected, seeds=seeds)
    records, boards, verdicts, result = derived
    describe_set = describe_set or registry.describe_set
    stack = contextlib.ExitStack()
    try:
        results.mkdir(parents=True, exist_ok=True)
        temporary = stack.enter_context(temporary_folder(results, ".report-"))
        plots, known = {}, len(records.problems)
        if records.runs:
            from replications.reporting.drawing import draw

            plots = draw(temporary, results, records, boards, verdicts, result, describe_set, open_arrays)
        if problems is not None:
            problems += records.problems
        manifest = {
            "tier": tier,
            "methods": sorted(records.expected),
            "selected": selected and list(selected),
            "seeds": seeds,
            "plots": {group: [asdict(plot) for plot in own] for group, own in plots.items()},
            "problems": records.problems[known:],
        }
        del records.problems[known:]
        texts = text_files(derived, papers, manifest, deviations, describe_set, tasks)
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        files = sorted(path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if path.is_file())
        manifest["files"] = files
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        return _move_into_place(temporary, results, files)
    except OSError as error:
        raise disk_error(error, "write the report to", results, "no record is lost") from error
    finally:
        stack.close()


def text_files(
    derived: Derived,
    papers: Mapping[str, Paper],
    manifest: Mapping,
    deviations: Mapping[str, Mapping[int, str]] | None = None,
    describe_set: Callable[[str], Mapping] | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> dict[str, str]:
    """Return all files of a report except its plots, by name: tables, citations, pages.

    `manifest` records the report's arguments, its plots and what could not be drawn.
    """
    records, boards, verdicts, result = derived
    texts = table_files(boards, verdicts, records.tier, result)
    stamp = tables.stamp(records.tier, result)
    texts["citations.bib"] = citation.bibtex(records, papers, describe_set or registry.describe_set, stamp)
    texts["CITATION.cff"] = citation.citation_cff()
    texts[RUNS] = runs_csv(records, papers, tasks, result)
    plots = {group: [site.Plot(**plot) for plot in own] for group, own in manifest.get("plots", {}).items()}
    records = replace(records, problems=[*records.problems, *manifest.get("problems", ())])
    files = [name for name in texts if name != "CITATION.cff"]
    return texts | site.pages(
        records, papers, boards, verdicts, deviations or {}, plots, texts["citations.bib"], files, result,
        manifest["selected"], tasks,
    )  # fmt: skip


def table_files(boards: Sequence[Leaderboard], verdicts: Sequence[Verdict], tier: str, result: bool) -> dict[str, str]:
    """Return all tables as text by file name: one leaderboard per task, and the claims, in four formats each."""
    texts = {}
    for board in boards:
        name = f"leaderboard_{board.task}"
        both = [tables.quality_table(board), tables.cost_table(board)]
        texts[f"{name}.csv"] = formats.leaderboard_csv(board)
        texts[f"{name}.md"] = formats.to_markdown(both)
        texts[f"{name}.tex"] = formats.to_latex(both)
        texts[f"{name}.json"] = formats.leaderboard_json(board)
    claims = [tables.claims_table(verdicts, tier, result)]
    texts["claims.csv"] = formats.claims_csv(verdicts, result)
    texts["claims.md"] = formats.to_markdown(claims)
    texts["claims.tex"] = formats.to_latex(claims)
    texts["claims.json"] = formats.claims_json(verdicts, tier, result)
    return texts


def runs_csv(records: Records, papers: Mapping[str, Paper], tasks: Mapping[str, Task] | None, result: bool) -> str:
    """The tidy table of the records (see `replications.reporting.load`) as CSV."""
    return formats.to_csv(frame.tidy(records, papers, tasks or tasks_of(papers)), result)


def read_manifest(results: Path) -> dict | None:
    """Return the arguments and files of the report in `results`, or None if there is no complete report."""
    try:
        manifest = json.loads((Path(results) / MANIFEST).read_text(encoding="utf-8"))
        texts = [*manifest["methods"], *(manifest["selected"] or ()), *manifest["files"], manifest["tier"]]
        named = [*manifest["files"], *(plot.file for plot in plots_of(manifest))]
        known = "seeds" in manifest and all(isinstance(text, str) for text in [*texts, *named])
        return manifest if known and all(map(_is_inside, named)) else None
    except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    except OSError as error:
        raise disk_error(error, "read", Path(results) / MANIFEST) from error


def plots_of(manifest: Mapping) -> list[site.Plot]:
    """Return the plots that a report's manifest lists."""
    return [site.Plot(**plot) for own in manifest.get("plots", {}).values() for plot in own]


def _is_inside(name: str) -> bool:
    """Whether a file name in a manifest is inside the report's folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def papers_on_page(results: Path, papers: Mapping[str, Paper]) -> list[str]:
    """Return the papers whose claims the report in `results` judges, and that have a record, in the order of `papers`.

    There is one page per tier: a report on other papers keeps these claims.
    """
    manifest = read_manifest(results) or {"selected": ()}
    judged = papers if manifest["selected"] is None else manifest["selected"]
    recorded = {name.split("/")[1] for name, _ in record_files(results) if name.startswith("runs/")}
    return [key for key in papers if key in judged and key in recorded]


def _move_into_place(temporary: Path, results: Path, files: Sequence[str]) -> dict[str, Path]:
    earlier = set((read_manifest(results) or {"files": ()})["files"])
    for name in [MANIFEST, *(name for name in files if name != site.INDEX), site.INDEX]:
        (results / name).parent.mkdir(exist_ok=True)
        os.replace(temporary / name, results / name)
    for name in earlier - set(files):
        if re.fullmatch(r"(plots/)?[\w-]+\.\w+", name):  # only files that reports make
            (results / name).unlink(missing_ok=True)
    return {name: results / name for name in files}
