"""Tables, leaderboards and verdicts as Markdown, LaTeX (booktabs), CSV and JSON text."""

import json
import math
import re
import textwrap
from collections.abc import Sequence

import pandas as pd

from replications.reporting import labels
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.tables import Table, fitting
from replications.reporting.verdicts import Verdict

# First characters of a spreadsheet formula, full-width forms included
FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")


def to_markdown(tables: Sequence[Table], level: int = 2) -> str:
    """Return the tables as Markdown in sequence; titles are headings of level `level`."""
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
    """Escape text for one Markdown table cell: no cell end, HTML tag, emphasis or code; links are kept."""
    text = re.sub(r"\\(?=[^\w\s])|[|`*]|<(?=[A-Za-z/!?])", r"\\\g<0>", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)  # literal within a word


LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "|": r"\textbar{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "÷": r"$\div$",
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
    """Escape text for LaTeX text mode, on one line."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


TEXT_WIDTH, FONT_SIZE, COLUMN_GAP = 469, 8, 6  # pt
SENTENCE_WIDTH = 150  # pt, of a column of sentences
HEADING_LETTERS = 11  # characters per line of a column heading


def to_latex(tables: Sequence[Table]) -> str:
    """The tables as LaTeX; needs ``\\usepackage{booktabs}``.

    At 8 pt they are at most 469 pt wide: columns that do not fit are left out and listed below the table.
    """
    blocks = []
    for table in tables:
        headings = [textwrap.wrap(column.title, HEADING_LETTERS, break_long_words=False) for column in table.columns]
        rows = [cells for _, section in table.sections for _, cells in section]
        widths = [
            SENTENCE_WIDTH if column.wrap else max(_width(t) for t in (*heading, *(cells[i].text for cells in rows)))
            for i, (column, heading) in enumerate(zip(table.columns, headings, strict=True))
        ]
        essential = {0, *(i for i, column in enumerate(table.columns) if column.essential)}
        shown = fitting([width + COLUMN_GAP for width in widths], essential, TEXT_WIDTH)
        total = sum(widths[i] + COLUMN_GAP for i in shown)
        left_out = ", ".join(column.title for i, column in enumerate(table.columns) if i not in shown)
        notes = [*table.notes, f"Not shown here: {left_out}."] if left_out else table.notes
        caption = " ".join(filter(None, (table.stamp, table.title + ".", *notes)))
        lines = [r"\begin{table*}", r"\centering", rf"\caption{{{latex_escape(caption)}}}"]
        lines += [rf"\label{{tab:{table.name.replace('_', '-')}}}", rf"\fontsize{{{FONT_SIZE}}}{{9.5}}\selectfont"]
        lines.append(rf"\setlength{{\tabcolsep}}{{{COLUMN_GAP / 2:g}pt}}")
        columns = [table.columns[i] for i in shown]
        alignment = "".join("r" if c.numeric else f"p{{{SENTENCE_WIDTH}pt}}" if c.wrap else "l" for c in columns)
        lines += [rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}", r"\toprule"]
        lines.append(" & ".join(_stacked(headings[i], table.columns[i].numeric) for i in shown) + r" \\")
        for title, section in table.sections:
            lines.append(r"\midrule")
            if title:
                kind, heading = "l", rf"\textit{{{latex_escape(title)}}}"
                if _width(title) > total:  # a paragraph, so that a long list of changes can wrap
                    kind = f"p{{{min(total, TEXT_WIDTH) - COLUMN_GAP:.0f}pt}}"
                    heading = r"{\raggedright " + heading.replace(",", r",\allowbreak ") + r"\par}"
                lines.append(rf"\multicolumn{{{len(shown)}}}{{@{{}}{kind}@{{}}}}{{{heading}}} \\")
            lines += [" & ".join(latex_escape(cells[i].text) for i in shown) + r" \\" for _, cells in section]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _stacked(lines: Sequence[str], numeric: bool) -> str:
    stacked = r"\\".join(map(latex_escape, lines))
    return stacked if len(lines) < 2 else rf"\shortstack[{'r' if numeric else 'l'}]{{{stacked}}}"


def _width(text: str) -> float:
    """Estimate the width of a line of Computer Modern in points, erring on the wide side."""

    def ems(c: str) -> float:
        return 0.38 if c in "ijlftrs.,:;!|[]()'`- " else 0.95 if c in "mwMW%@—" else 0.8 if c.isupper() else 0.55

    return FONT_SIZE * sum(map(ems, text))


def leaderboard_csv(board: Leaderboard) -> str:
    """One line per method, full precision: the leaderboard's JSON without the values of each seed."""
    left_out = {"finished": True, "failed": True, "missing": True, "metrics": {"__all__": {"values"}}}
    rows = [{"tier": board.tier, **row.model_dump(exclude=left_out, exclude_none=True)} for row in board.rows]
    table = pd.json_normalize(rows, sep="_").rename(columns=lambda name: name.removeprefix("metrics_"))
    return to_csv(table.convert_dtypes(), board.result)  # counts stay integers if another row has none


def claims_csv(verdicts: Sequence[Verdict], result: bool) -> str:
    """One line per claim, every field of the verdict, full precision; lists joined by ``;``."""
    table = pd.DataFrame([verdict.model_dump() for verdict in verdicts], columns=list(Verdict.model_fields))
    return to_csv(table.map(lambda x: ";".join(map(str, x)) if isinstance(x, tuple) else x), result)


def to_csv(table: pd.DataFrame, result: bool) -> str:
    """Return the table as CSV, with a first column that marks a plumbing tier; no cell is a spreadsheet formula."""
    table = table.map(_plain)
    table.insert(0, "stamp", "" if result else labels.NOT_A_RESULT)
    return table.to_csv(index=False, lineterminator="\n")


def _plain(cell):
    """Return a cell that spreadsheets read as text or a number, never as a formula (`'` marks text)."""
    if isinstance(cell, str):
        cell = cell.replace("\r", "\n")  # csv writes it unquoted
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    if cell[0] in "+-" and re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?(;[+-]?[\d.]+(e[+-]?\d+)?)*", cell):
        return cell  # a number, or several
    return f"'{cell}"


def leaderboard_json(board: Leaderboard) -> str:
    """Return the leaderboard as JSON in full precision; a plumbing tier's mark comes first."""
    return _json({"stamp": "" if board.result else labels.NOT_A_RESULT, **board.model_dump(mode="json")})


def claims_json(verdicts: Sequence[Verdict], tier: str, result: bool) -> str:
    """Return all verdicts as JSON in full precision; a plumbing tier's mark comes first."""
    stamp = "" if result else labels.NOT_A_RESULT
    return _json({"stamp": stamp, "tier": tier, "verdicts": [v.model_dump(mode="json") for v in verdicts]})


def _json(plain: dict) -> str:
    return json.dumps(_finite(plain), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _finite(plain):
    """Replace numbers that JSON cannot represent (inf, NaN) by null: a spread may overflow."""
    if isinstance(plain, dict):
        return {key: _finite(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_finite(value) for value in plain]
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
