"""A tier's static HTML: an index with the verdicts, and one page per task with its claims, tables and plots.

Pages are self-contained (inline style and script, plots as relative files), work offline, and depend only on the
records and the plots drawn from them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replications import looks
from replications.records import RunRecord
from replications.reporting import labels, power, rerun, statistics, wording
from replications.reporting.leaderboard import Leaderboard, Row, heading
from replications.reporting.learned import first_line, paragraphs
from replications.reporting.need import need_text
from replications.reporting.results import Records
from replications.reporting.summary import by_task, counts, marked, summary_table, task_titles
from replications.reporting.tables import Cell, Column, Table, claims_table, cost_table, quality_table, stamp
from replications.reporting.verdicts import Verdict
from replications.spec import Paper
from replications.tasks.base import Task

TEMPLATES = Path(__file__).with_name("templates")
INDEX = "index.html"
LINK = re.compile(r"\[([^]]*)\]\(([\w./#-]+)\)")  # Markdown's, of a path


@dataclass(frozen=True)
class Plot:
    """A plot beside the page: relative path, alternative text, caption, and whether it may be published."""

    file: str
    alt: str
    caption: str
    publish: bool = False


def pages(
    records: Records,
    papers: Mapping[str, Paper],
    boards: Sequence[Leaderboard],
    verdicts: Sequence[Verdict],
    deviations: Mapping[str, Mapping[int, str]],
    plots: Mapping[str, Sequence[Plot]],
    bibtex: str,
    files: Sequence[str],
    result: bool,
    selected: Sequence[str] | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> dict[str, str]:
    """Return the HTML of ``index.html`` and of a page for each task by file name.

    `plots` holds the plots of each task, and of ``claims``; `files` are the report's other files.
    """
    rows = {row.address: row for board in boards for row in board.rows}
    runs = [record for by_seed in records.runs.values() for record in by_seed.values()]
    made = sorted(r.provenance.created[:10] for r in runs if r.provenance)
    when = "" if not made else f", made {made[0]}" + (f" to {made[-1]}" if made[-1] != made[0] else "")
    judged, board_of = by_task(verdicts, papers), {board.task: board for board in boards}
    names = {task: title for task, title in task_titles(papers, tasks).items() if task in judged or task in board_of}
    common = {
        "tier": records.tier,
        "stamp": stamp(records.tier, result),
        "problems": records.problems,
        "pages": [(INDEX, "All tasks"), *((f"{task}.html", title) for task, title in names.items())],
    }

    def about(shown: Sequence[Verdict], of: Sequence[RunRecord]) -> dict:
        methods = len({record.spec.address for record in of})
        return {
            "subtitle": f"{len(shown)} claims, {methods} methods, {len(of)} runs{when}.",
            "counts": counts(shown),
            "learned": first_line(shown),
        }

    groups = []
    texts = {}
    for task, title in names.items():
        own = [v for of in judged.get(task, {}).values() for v in of]
        group = {
            "title": title,
            "page": f"{task}.html",
            "papers": [
                _group(papers[key], of, rows, deviations.get(key, {})) for key, of in judged.get(task, {}).items()
            ],
        }
        groups.append(group)
        board = board_of.get(task)
        texts[group["page"]] = render(
            "task.html.jinja",
            title=f"{title}: tier {records.tier}",
            papers=group["papers"],
            board=board and {"quality": quality_table(board), "cost": cost_table(board)},
            plots=plots.get(task, ()),
            page=group["page"],
            files=[name for name in files if task in name],
            **about(own, [record for record in runs if record.spec.task == task]),
            **common,
        )
    texts[INDEX] = render(
        "index.html.jinja",
        title=f"Replications: tier {records.tier}",
        summary=summary_table(verdicts, papers, tasks),
        groups=groups,
        findings=paragraphs(verdicts, papers),
        forest=next(iter(plots.get("claims", ())), None),
        claims=claims_table(verdicts, records.tier, result),
        power=power_table(),
        provenance=provenance_table(records),
        rerun="\n".join(rerun.commands(records, selected or None) + rerun.checks(records)),
        bibtex=bibtex,
        page=INDEX,
        files=files,
        **about(verdicts, runs),
        **common,
    )
    return texts


def render(template: str, **context) -> str:
    """Render a page from one of the templates, with inline style and script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["breakable"] = lambda text: Markup(str(escape(text)).replace("/", "/<wbr>"))
    environment.filters["linked"] = lambda text: Markup(LINK.sub(r'<a href="\2">\1</a>', str(escape(text))))
    css, script = (Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in ("style.css", "sort.js"))
    return environment.get_template(template).render(marked=marked, css=css, script=script, **context)


def _group(paper: Paper, verdicts: Sequence[Verdict], rows: Mapping[str, Row], deviations: Mapping[int, str]) -> dict:
    """A paper's heading and the cards of its claims."""
    arxiv = f", arXiv {paper.arxiv}" if paper.arxiv else ""
    return {
        "key": paper.key,
        "title": paper.title,
        "reference": f"{paper.venue}, {paper.year}{arxiv}",
        "cards": [_card(v, rows, deviations) for v in verdicts],
    }


def _card(v: Verdict, rows: Mapping[str, Row], deviations: Mapping[int, str]) -> dict:
    from markupsafe import Markup

    kind, decimals = v.effect_kind, v.decimals
    unit = f" {v.unit}" if v.unit else ""
    sides = f"{v.subject} against {v.reference or f'{v.expected:g}'}, {v.subject_metric}"
    if v.reference_metric not in (None, v.subject_metric):
        sides += f" against {v.reference_metric}"
    facts = [("Compared", sides)]
    if v.reported_effect is not None:
        facts.append(("Paper's effect", f"{labels.effect(v.reported_effect, kind, decimals)}{unit}"))
    delta = labels.effect(1 + v.smallest_effect, kind, decimals) if kind == "ratio" else f"{v.smallest_effect:g}{unit}"
    facts.append(("δ", f"{delta} ({v.direction})"))
    if v.n:
        evidence = v.evidence_text
        if v.looks and v.replication == "seeds":
            evidence += f", the {labels.look(v.looks)} look: effect and interval are of these"
        if v.p_holm is not None:
            evidence += f"; p {labels.p_value(v.p_holm)} for, {labels.p_value(v.p_against_holm)} against"
            over = f", Holm over {v.family} claims" if v.family > 1 else ""
            evidence += (
                f" (over {len(v.p_looks)} looks{over})" if len(v.p_looks) > 1 else f" ({over[2:]})" if over else ""
            )
        facts.append(("Evidence", evidence))
    if v.reached:
        facts.append(("Decided", f"at the {wording.look(v.reached)}" if v.replication == "seeds" else "by the folds"))
    if v.waiting:
        facts.append(("Not used yet", wording.waiting(v)))
    if v.raw != v.adjusted:
        facts.append(("Before Holm", v.raw))
    if need := need_text(v):
        facts.append(("Would need", f"{need} (80 % power if effect and spread are as they seem)"))
    if v.detectable is not None and v.adjusted == "inconclusive":
        facts.append(
            ("Detectable", f"{labels.number(v.detectable, decimals)}{unit} at 80 % power with this spread, alone")
        )
    where = heading("; ".join(v.data), v.category)
    if where:
        facts.append(("Data", f"{where}, tier {v.tier}"))
    costs = [rows[a].cost for a in dict.fromkeys((v.subject, v.reference)) if a in rows and rows[a].cost]
    spent = [
        f"{labels.hours(sum(hours))} {name}"
        for name, key in (("CPU-hours", "cpu_hours"), ("GPU-hours", "gpu_hours"))
        if (hours := [getattr(c, key) for c in costs if getattr(c, key) is not None])
    ]
    if spent:
        facts.append(("Cost", f"{', '.join(spent)} for all seeds of both sides" if v.reference else ", ".join(spent)))
    if v.expected is not None and v.replication == "seeds" and v.evidence == "sampled":
        scale = " on the log scale" if kind == "ratio" else ""
        facts.append(("Noise", f"taken as normal{scale}: there is no second side whose skew would cancel"))
    if v.note:
        facts.append(("Note", v.note))
    told_deviations = [(n, deviations.get(n, "(not found in the paper's README)")) for n in v.deviations]
    return {
        "address": v.address,
        "claim": v.claim,
        "where": v.where,
        "word": v.adjusted,
        "statement": v.statement,
        "verdict": marked(v.adjusted),
        "effect": v.effect_text,
        "interval": v.interval and f"95 % {labels.interval(v.interval, kind, decimals)}",
        "strip": Markup(_strip(v)) if v.effect is not None else "",
        "why": v.reason[:1].upper() + v.reason[1:] + ".",
        "warnings": v.warnings,
        "facts": facts,
        "deviations": told_deviations,
    }


def _strip(v: Verdict) -> str:
    """A small picture of effect, interval, zero, ±delta and the paper's effect, 300 units wide, as inline
    SVG.
    """
    scale = np.log if v.effect_kind == "ratio" else np.asarray
    delta = v.delta
    effect = float(scale(v.effect))
    reported = None if v.reported_effect is None else float(scale(v.reported_effect))
    ends = None if v.interval is None else [float(scale(end)) for end in v.interval]
    points = [0.0, -delta, delta, effect, *([reported] if reported is not None else [])]
    reach = max(max(map(abs, points)), 1e-9)
    low, high = min([*points, *(ends or [])]), max([*points, *(ends or [])])
    low, high = max(low, -3 * reach) - 0.06 * reach, min(high, 3 * reach) + 0.06 * reach

    def x(value: float) -> str:
        return f"{300 * (min(max(value, low), high) - low) / (high - low):.1f}"

    start, end = {"greater": (delta, high), "less": (low, -delta), "equal": (-delta, delta)}[v.direction]
    width = float(x(end)) - float(x(start))
    shapes = [f'<rect class="claimed" x="{x(start)}" y="3" width="{width:.1f}" height="28"/>']
    shapes += [f'<line class="delta" x1="{x(d)}" x2="{x(d)}" y1="3" y2="31"/>' for d in (-delta, delta)]
    shapes.append(f'<line class="null" x1="{x(0)}" x2="{x(0)}" y1="0" y2="34"/>')
    if ends:
        shapes.append(f'<line class="interval" x1="{x(ends[0])}" x2="{x(ends[1])}" y1="20" y2="20"/>')
    shapes.append(f'<circle class="dot" cx="{x(effect)}" cy="20" r="5"/>')
    if reported is not None:
        middle = float(x(reported))
        shapes.append(f'<path class="reported" d="M{middle} 3l4 5-4 5-4-5z"/>')
    spoken = f"effect {labels.effect(v.effect, v.effect_kind, v.decimals)}"
    if v.interval:
        spoken += f", interval {labels.interval(v.interval, v.effect_kind, v.decimals)}"
    return f'<svg class="strip" viewBox="0 0 300 34" role="img" aria-label="{spoken}">' + "".join(shapes) + "</svg>"


def power_table() -> Table:
    """Return the power of each look, in standard deviations of a seed difference."""
    rows = []
    for n, weight in zip(looks.LOOKS, looks.WEIGHTS, strict=True):
        alpha = statistics.ALPHA * weight
        least = statistics.t_quantile(1 - alpha / 2, n - 1) / n**0.5
        found, margin = power.detectable_effect(n, alpha=alpha), power.equality_margin(n, alpha=alpha / 2)
        sizes = [Cell(f"{size:.2f} SD", size) for size in (least, found, margin)]
        rows.append((str(n), [Cell(str(n)), Cell(f"{weight:.0%}", weight), *sizes]))
    columns = [
        Column("seeds", "Seeds", numeric=False, sortable=False),
        Column("weight", "Share of the 5 %", sortable=False),
        Column("least", "Least mean effect that decides", sortable=False),
        Column("effect", "True effect found at 80 % power", sortable=False),
        Column("margin", "Least provable ±δ", sortable=False),
    ]
    notes = [
        "In standard deviations of the paired seed difference, for a single claim at this look. The third and the "
        "fourth column are also distances below δ at which a claim is contradicted; the last is for a true difference "
        "of zero."
    ]
    return Table("power", "Power by look", columns, [("", rows)], notes)


def provenance_table(records: Records) -> Table:
    """Return the provenance of the runs (machine, dates, software), one row per distinct set."""
    runs = [record for by_seed in records.runs.values() for record in by_seed.values()]
    everything = [record.provenance for record in [*runs, *records.throughput.values()] if record.provenance]

    def distinct(values) -> str:
        return "; ".join(sorted({str(value) for value in values if value is not None})) or "unknown"

    packages: dict[str, set[str]] = {}
    for p in everything:
        for name, version in p.packages.items():
            packages.setdefault(name, set()).add(version)
    facts = {
        "Device": distinct(p.device if p.device_kind != "cpu" else f"cpu: {p.cpu}" for p in everything),
        "Cores, memory": distinct(f"{p.cpu_count} cores, {p.memory_gib:.0f} GiB" for p in everything),
        "CPU kernels": distinct(p.cpu_capability for p in everything),
        "Threads a run": distinct(p.threads for p in everything),
        "Platform": distinct(p.platform for p in everything),
        "Python": distinct(p.python for p in everything),
        "Packages": ", ".join(f"{name} {'/'.join(sorted(v))}" for name, v in sorted(packages.items())) or "unknown",
        "Suite version": distinct(p.suite_version for p in everything),
        "Commit": distinct(p.commit and p.commit[:12] + (" with local changes" if p.dirty else "") for p in everything),
        "Deterministic": distinct("yes" if p.deterministic else "no" for p in everything),
        "Date (UTC)": distinct(p.created[:10] for p in everything),
        "Seeds": ", ".join(map(str, records.seeds)) or "none",
    }
    columns = [
        Column("fact", "What", numeric=False, sortable=False),
        Column("value", "Value", numeric=False, sortable=False, wrap=True),
    ]
    rows = [(name, [Cell(name), Cell(text)]) for name, text in facts.items()]
    return Table("provenance_table", "Provenance of the records", columns, [("", rows)])
