"""Publish a tier's records and tables below ``results/published/``, and show them in the README.

A publication is a copy that is committed and cited: records, tables and those plots that show no sample of
a data set, no scores.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from replications.errors import UserError
from replications.records import write_atomic
from replications.reporting import formats, labels, report
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.tables import Cell, Column, Table, plus_minus
from replications.reporting.verdicts import Verdict
from replications.reporting.verify import verify
from replications.spec import Paper
from replications.tasks.base import Task

BEGIN, END = "<!-- published:begin -->", "<!-- published:end -->"
README_METRICS = 4


def publish(
    results: Path,
    published: Path,
    papers: Mapping[str, Paper],
    *,
    name: str | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> Path:
    """Copy the report in `results` (``results/<tier>``) and its records to ``<published>/<tier>-<name>``.

    `name` is the date of the latest record where not given. Raises UserError where there is no report, the
    tier gives no results, the publication exists, or a number does not follow from the records.
    """
    results, published = Path(results), Path(published)
    manifest = report.read_manifest(results)
    if manifest is None:
        raise UserError(f"no report in {results}: make one with 'replications report' before publishing it")
    tier = manifest["tier"]
    if tier in report.PLUMBING_TIERS:
        raise UserError(f"tier {tier} is {labels.NOT_A_RESULT}: nothing of it is published")
    wrong = verify(results, tier, papers, tasks=tasks)
    if wrong:
        raise UserError(f"{len(wrong)} numbers in {results} do not follow from the records, first {wrong[0]}")
    records = report.derive(results, tier, papers, tasks=tasks, methods=manifest["methods"])[0]
    dates = [r.provenance.created[:10] for of in records.runs.values() for r in of.values() if r.provenance]
    target = published / f"{tier}-{name or max(dates, default='undated')}"
    if target.exists():
        raise UserError(f"{target} is published already: give another name, or remove it first")
    shown = manifest.get("publish", ())
    kept = [f for f in manifest["files"] if f in shown or not f.startswith(("plots/", "index.html"))]
    sources = [*kept, *(p.relative_to(results).as_posix() for p in results.glob("runs/*/*/seed*/run.json"))]
    sources += [p.relative_to(results).as_posix() for p in results.glob("throughput/*/*.json")]
    published.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=published, prefix=".publish-"))
    try:
        for source in sources:
            (temporary / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(results / source, temporary / source)
        (temporary / report.MANIFEST).write_text(json.dumps({**manifest, "files": kept}, indent=1) + "\n")
        temporary.chmod(0o755)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"cannot publish to {target}: {error.strerror} (nothing is lost)") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def readme_section(published: Path, root: Path) -> str:
    """Markdown of all publications, latest name first; links are relative to `root`, the README's folder."""
    folders = [path.parent for path in Path(published).glob(f"*/{report.MANIFEST}")]
    if not folders:
        return "Nothing is published yet."
    return "\n\n".join(_publication(folder, root) for folder in sorted(folders, reverse=True))


def update_readme(readme: Path, published: Path) -> None:
    """Regenerate the README's section between its two markers; raises UserError where they are missing."""
    readme = Path(readme)
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{readme} lacks the markers '{BEGIN}' and '{END}' of the published section")
    section = readme_section(published, readme.resolve().parent)
    write_atomic(readme, f"{before}{BEGIN}\n\n{section}\n\n{END}{after}".encode())


def _publication(folder: Path, root: Path) -> str:
    tier = json.loads((folder / report.MANIFEST).read_text())["tier"]
    boards = [Leaderboard.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("leaderboard_*.json"))]
    told = json.loads((folder / "claims.json").read_text())["verdicts"]
    verdicts = [Verdict.model_validate(one) for one in told]
    devices = sorted({row.cost.device for board in boards for row in board.rows if row.cost})
    link = os.path.relpath(Path(folder).resolve(), Path(root).resolve())
    made = [*(_short_board(board) for board in boards), *([_short_claims(verdicts)] if verdicts else [])]
    intro = f"### {folder.name}\n\nTier {tier}, on {'; '.join(devices) or 'unknown device'}. "
    intro += f"Records and full tables: [{link}]({link}).\n\n"
    if (folder / "plots" / "claims.svg").exists():
        intro += f"![Effects and intervals of the claims]({link}/plots/claims.svg)\n\n"
    return (intro + formats.to_markdown(made, level=4)).rstrip()


def _short_board(board: Leaderboard) -> Table:
    first = [c for c in board.columns if c.key == board.primary_metric]
    metrics = (first + [c for c in board.columns if c.key != board.primary_metric])[:README_METRICS]

    def cells(row) -> list[Cell]:
        shown = [row.metrics.get(column.key) for column in metrics]
        texts = [
            plus_minus(cell.mean, cell.half_width, column.decimals) if cell else "–"
            for cell, column in zip(shown, metrics, strict=True)
        ]
        return [Cell(text) for text in (row.address, *texts, row.status)]

    columns = [
        Column("method", "Method", numeric=False),
        *(Column(c.key, labels.with_unit(c.title, c.unit)) for c in metrics),
        Column("seeds", "Seeds", numeric=False),
    ]
    sections = [(title, [(row.address, cells(row)) for row in rows]) for title, rows in board.sections()]
    note = "Mean over seeds ± half width of its 95 % t interval."
    return Table(f"published_{board.task}", board.title, columns, sections, [note])


def _short_claims(verdicts: Sequence[Verdict]) -> Table:
    columns = [Column(name.lower(), name, numeric=False) for name in ("Claim", "Statement", "Verdict")]
    columns += [Column(name.lower(), name) for name in ("Effect", "95 % interval", "Paper's effect")]
    rows = []
    for v in verdicts:
        kind, decimals = v.effect_kind, v.decimals
        word = v.adjusted if v.adjusted != "not tested" else f"{v.adjusted}: {v.reason}"
        texts = (
            v.address,
            v.statement,
            word,
            f"{labels.effect(v.effect, kind, decimals)} {v.unit}".strip() if v.effect is not None else "–",
            labels.interval(v.interval, kind, decimals),
            labels.effect(v.reported_effect, kind, decimals) or "–",
        )
        rows.append((v.address, [Cell(text) for text in texts]))
    return Table("published_claims", "Claims", columns, [("", rows)])
