"""Tables, leaderboards and verdicts as Markdown, LaTeX (booktabs), CSV and JSON text."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence

from replications.reporting import labels
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.tables import Table
from replications.reporting.verdicts import Verdict

FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")  # how a formula begins, in wide signs too


def to_markdown(tables: Sequence[Table], level: int = 2) -> str:
    """The tables as Markdown, one after the other, titles being headings of `level`."""
    blocks = []
    for table in tables:
        lines = [f"{'#' * level} {_md(table.title)}", ""]
        if table.stamp:
            lines += [f"**{_md(table.stamp)}**", ""]
        for title, rows in table.sections:
            if title:
                lines += [f"{'#' * (level + 1)} {_md(title)}", ""]
            lines.append("| " + " | ".join(_md(column.title) for column in table.columns) + " |")
            lines.append("| " + " | ".join("---:" if c.numeric else "---" for c in table.columns) + " |")
            lines += ["| " + " | ".join(_md(cell.text) for cell in cells) + " |" for _, cells in rows]
            lines.append("")
        lines += [line for note in table.notes for line in (_md(note), "")]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _md(text: str) -> str:
    """One line of Markdown that ends no cell, begins no HTML tag and no emphasis or code; links stay links."""
    text = re.sub(r"\\(?=[^\w\s])|[|`*]|<(?=[A-Za-z/!?])", r"\\\g<0>", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)  # within a word it means itself


LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "|": r"\textbar{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "→": r"$\to$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "—": "---",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "<": r"$<$",
    ">": r"$>$",
    "·": r"$\cdot$",
    "θ": r"$\theta$",
    "δ": r"$\delta$",
    "°": r"$^\circ$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "²": r"$^2$",
    "µ": r"$\mu$",
}


def latex_escape(text: str) -> str:
    """Escape for LaTeX text mode, in one line."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def to_latex(tables: Sequence[Table]) -> str:
    """The tables as LaTeX; needs ``\\usepackage{booktabs}`` and, for wide tables,
    ``\\usepackage{graphicx}``.
    """
    blocks = []
    for table in tables:
        caption = " ".join(filter(None, (table.stamp, table.title + ".", *table.notes)))
        lines = [r"\begin{table*}", r"\centering", rf"\caption{{{latex_escape(caption)}}}"]
        lines.append(rf"\label{{tab:{table.name.replace('_', '-')}}}")
        alignment = "".join("r" if c.numeric else "p{6cm}" if c.wrap else "l" for c in table.columns)
        lines += [r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
        lines.append(" & ".join(latex_escape(column.title) for column in table.columns) + r" \\")
        for title, rows in table.sections:
            lines.append(r"\midrule")
            if title:
                lines.append(rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\textit{{{latex_escape(title)}}}}} \\")
            lines += [" & ".join(latex_escape(cell.text) for cell in cells) + r" \\" for _, cells in rows]
        lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table*}", ""]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def leaderboard_csv(board: Leaderboard) -> str:
    """One line a method, full precision: mean, sd, half width and n of each metric, then data, seeds and
    cost.
    """
    header = ["address", "role", "title", "tier", "stamp", "category", "train_data", "test_data", "status"]
    for column in board.columns:
        header += [f"{column.key}_{part}" for part in ("mean", "sd", "half_width", "n")]
    cost = ("parameters", "model_parameters", "flops_per_sample", "peak_memory_bytes", "train_seconds")
    cost += ("samples_per_second", "data_wait", "energy_joules", "cpu_hours", "gpu_hours", "device")
    speed = (
        "train_samples_per_second",
        "inference_samples_per_second",
        "mfu",
        "precision",
        "batch_size",
        "device",
        "background_load",
    )
    header += [f"cost_{key}" for key in cost] + [f"speed_{key}" for key in speed]
    lines = []
    for row in board.rows:
        line = [row.address, row.role, row.title, board.tier, "" if board.result else labels.NOT_A_RESULT]
        line += [row.category, row.train_data, row.test_data, row.status]
        for column in board.columns:
            cell = row.metrics.get(column.key)
            line += [cell and getattr(cell, part) for part in ("mean", "sd", "half_width", "n")]
        line += [row.cost and getattr(row.cost, key) for key in cost]
        line += [row.speed and getattr(row.speed, key) for key in speed]
        lines.append(line)
    return _csv(header, lines)


def claims_csv(verdicts: Sequence[Verdict], result: bool) -> str:
    """One line a claim, every field of the verdict, full precision; lists joined by ``;``."""
    keys = list(Verdict.model_fields)
    stamp = "" if result else labels.NOT_A_RESULT

    def flat(value):
        return ";".join(map(str, value)) if isinstance(value, tuple) else value

    return _csv(["stamp", *keys], [[stamp, *(flat(getattr(v, key)) for key in keys)] for v in verdicts])


def _csv(header: Sequence[str], lines: Sequence[Sequence]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([[_plain(cell) for cell in line] for line in [header, *lines]])
    return stream.getvalue()


def _plain(cell):
    """Return a cell that a spreadsheet takes for text or a number, never for a formula (`'` marks text there)."""
    if isinstance(cell, str):
        cell = cell.replace("\r", "\n")  # which csv writes unquoted
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    if cell[0] in "+-" and re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?(;[+-]?[\d.]+(e[+-]?\d+)?)*", cell):
        return cell  # a number, or several
    return f"'{cell}"


def leaderboard_json(board: Leaderboard) -> str:
    """The leaderboard in full precision, with the stamp of a plumbing tier first."""
    return _json({"stamp": "" if board.result else labels.NOT_A_RESULT, **board.model_dump(mode="json")})


def claims_json(verdicts: Sequence[Verdict], tier: str, result: bool) -> str:
    """All verdicts in full precision, with the stamp of a plumbing tier first."""
    stamp = "" if result else labels.NOT_A_RESULT
    return _json({"stamp": stamp, "tier": tier, "verdicts": [v.model_dump(mode="json") for v in verdicts]})


def _json(plain: dict) -> str:
    return json.dumps(_finite(plain), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _finite(plain):
    """The same with null for each number that JSON has no word for: a spread may overflow."""
    if isinstance(plain, dict):
        return {key: _finite(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_finite(value) for value in plain]
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
