"""Readable tables from leaderboards and verdicts.

A cell of a `Table` has the displayed text and the number behind it. Page, terminal and files are made from the same
tables, so they always agree.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from replications.reporting import labels
from replications.reporting.leaderboard import Leaderboard, MetricColumn, Row
from replications.reporting.need import need_text
from replications.reporting.verdicts import Verdict

BUSY_MARK = " †"
OPTIONAL = {"energy_joules", "gpu_hours", "cpu_hours", "data_wait"}  # omitted if no row has a value
STAMP = "NOT A RESULT: tier {tier} only shows that the plumbing works."


@dataclass(frozen=True)
class Cell:
    """`value` sorts the column; None for a cell without a number. `hint` is small print, shown on the page only."""

    text: str
    value: float | None = None
    hint: str = ""


@dataclass(frozen=True)
class Column:
    """`sortable` is false if cells must not be ranked against each other; `wrap` marks sentences. If a table is too
    wide, the `essential` columns are kept. `cell` makes the cell from a row's object, see `Table.fill`.
    """

    key: str
    title: str
    numeric: bool = True
    sortable: bool = True
    description: str = ""
    wrap: bool = False
    essential: bool = False
    cell: Callable[[Any], Cell] | None = None


@dataclass
class Table:
    """`sections` are (title, rows); each row begins with its key, which is not shown."""

    name: str
    title: str
    columns: list[Column]
    sections: list[tuple[str, list[tuple[str, list[Cell]]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stamp: str = ""

    def fill(self, sections: Iterable[tuple[str, Iterable[tuple[str, Any]]]]) -> "Table":
        """Make the rows from (title, [(key, object)]) by each column's `cell`; return the table."""
        self.sections += [
            (title, [(key, [column.cell(about) for column in self.columns]) for key, about in rows])
            for title, rows in sections
        ]
        return self


def number(value: float | None, write: Callable[[float], str], missing: str = "–") -> Cell:
    """Return a cell with a number formatted by `write`."""
    return Cell(missing if value is None else write(value), value)


def stamp(tier: str, result: bool) -> str:
    """Return the mark of a plumbing tier; empty for tiers that give results."""
    return "" if result else STAMP.format(tier=tier)


def fitting(widths: Sequence[float], essential: Collection[int], room: float) -> list[int]:
    """Return the indices of the columns to show: the `essential` ones and as many others, in order, as fit `room`."""
    room -= sum(widths[place] for place in essential)
    shown = set(essential)
    for place, width in enumerate(widths):
        if place not in shown and width <= room:
            shown.add(place)
            room -= width
    return sorted(shown)


def plus_minus(mean: float, half_width: float | None, decimals: int, factor: float | None = None) -> str:
    """``97.45 ± 0.26``, or ``12.3 ×/÷ 1.05`` on a log scale; the mean alone for one seed."""
    text = labels.number(mean, decimals)
    if factor is not None:
        return f"{text} ×/÷ {factor:.2f}"
    return text if half_width is None else f"{text} ± {labels.number(half_width, decimals)}"


def _grouped(board: Leaderboard) -> list[tuple[str, list[tuple[str, Row]]]]:
    """Sections of comparable rows, split by role: methods, baselines, ablations."""
    return [
        (" — ".join(filter(None, (role_title, title))), chosen)
        for title, rows in board.sections()
        for role, role_title in labels.ROLE_TITLES.items()
        if (chosen := [(row.address, row) for row in rows if row.role == role])
    ]


def quality_table(board: Leaderboard) -> Table:
    """Mean ± half width of the 95 % t interval over seeds, for each metric of the task's table."""

    def reached(row: Row, column: MetricColumn) -> Cell:
        cell = row.metrics.get(column.key)
        mark = BUSY_MARK if column.timed and (row.background_load or 0) > labels.BUSY else ""
        text = plus_minus(cell.mean, cell.half_width, column.decimals, cell.factor) + mark if cell else "–"
        return Cell(text, cell and cell.mean)

    columns = [Column("method", "Method", numeric=False, cell=lambda row: Cell(row.address, hint=row.title))]
    for c in board.columns:
        title = f"{labels.with_unit(c.title, c.unit)} {'↑' if c.higher_is_better else '↓'}"
        primary, cell = c.key == board.primary_metric, partial(reached, column=c)
        columns.append(Column(c.key, title, description=c.description, essential=primary, cell=cell))
    columns += [
        Column("seeds", "Seeds", False, essential=True, cell=lambda row: Cell(row.status, len(row.finished))),
        Column("train", "Training data", False, cell=lambda row: Cell(row.train_data or "–")),
    ]
    if any(row.changed_options for row in board.rows):
        cell = lambda row: Cell(row.changed_options or "–")  # noqa: E731
        columns.append(Column("changed", "Changed options", False, wrap=True, cell=cell))
    notes = [
        "Mean over seeds ± half width of its 95 % t interval; none for one seed or where all seeds agree. "
        "Headings name test data and protocol category: numbers compare only below one heading. Rows are "
        f"ordered by {board.primary_metric}; overlapping intervals are no ranking: claims are judged on "
        "paired differences."
    ]
    if any(cell.factor for row in board.rows for cell in row.metrics.values()):
        notes.append("×/÷: geometric mean, and the factor up and down to the ends of its interval.")
    if any(column.timed for column in board.columns):
        loads = [row.background_load for row in board.rows if row.finished]
        notes.append(f"Times were taken within the runs. {_of_load(loads)}")
    if not any(row.finished for row in board.rows):
        notes.append("No run has finished yet.")
    title = f"{board.title}: leaderboard, tier {board.tier}"
    table = Table(f"leaderboard_{board.task}", title, columns, [], notes, stamp(board.tier, board.result))
    return table.fill(_grouped(board))


def _of_load(loads: Sequence[float | None]) -> str:
    """Describe the load by other programs during timing, as recorded."""
    known = [load for load in loads if load is not None]
    words = []
    if known:
        low, high = (f"{100 * load:.0f}" for load in (min(known), max(known)))
        words.append(f"Others used {low if low == high else f'{low} to {high}'} % of the machine meanwhile.")
    if len(known) < len(loads):
        words.append(f"Of {len(loads) - len(known)} of {len(loads)} rows the load by others is not known.")
    if any(load > labels.BUSY for load in known):
        words.append(f"{BUSY_MARK.strip()} more than {100 * labels.BUSY:.0f} %: not to be compared.")
    return " ".join(words)


def speed_classes(board: Leaderboard) -> dict[tuple[str, str, int], str]:
    """Letters for the classes (device, precision, batch size) within which throughput may be compared."""
    found = sorted({row.speed.comparable for row in board.rows if row.speed})
    return {comparable: chr(ord("a") + i) for i, comparable in enumerate(found)}


def cost_table(board: Leaderboard) -> Table:
    """Return the cost of the rows. Throughput has the letter of its class and is never ranked across classes."""
    classes = speed_classes(board)
    one_class = len(classes) <= 1
    speeds = [row.speed for row in board.rows if row.speed and row.speed.status == "measured"]
    ranked = one_class and not any(speed.busy for speed in speeds)
    several_devices = len({row.cost.device for row in board.rows if row.cost}) > 1

    def spent(key: str, title: str, write: Callable[[float], str], description: str = "", **more: bool) -> Column:
        def cell(row: Row) -> Cell:
            return number(getattr(row.cost, key, None), write)

        return Column(key, title, description=description, cell=cell, **more)

    def speed(key: str, title: str, write: Callable[[float], str], description: str, missing="–") -> Column:
        def cell(row: Row) -> Cell:
            if row.speed and row.speed.status != "measured" and missing:
                return Cell(row.speed.status)
            value = getattr(row.speed, key, None)
            letter = "" if one_class or not row.speed else f" ({classes[row.speed.comparable]})"
            return number(value, lambda x: write(x) + letter + (BUSY_MARK if row.speed.busy else ""), missing)

        return Column(key, title, sortable=ranked, description=description, cell=cell)

    columns = [
        Column("method", "Method", numeric=False, cell=lambda row: Cell(row.address)),
        spent("parameters", "Parameters", labels.short, "trainable, heads included"),
        spent("model_parameters", "At test time", labels.short, "parameters kept at test time"),
        spent("flops_per_sample", "FLOPs/sample", labels.short, "forward pass at test time; one multiply-add is two"),
        speed("train_samples_per_second", "Training samples/s", labels.short, "in a separate process"),
        speed("inference_samples_per_second", "Inference samples/s", labels.short, "in a separate process"),
        speed("mfu", "MFU (%)", labels.percent, "blank: peak of the device unknown", missing=""),
        spent(
            "peak_memory_bytes", "Peak memory", labels.mebibytes, "resident on CPU, allocated on GPU",
            sortable=not several_devices,
        ),
        spent("data_wait", "Data wait (%)", labels.percent, "of the training time"),
        spent("energy_joules", "Energy (J/run)", labels.short),
        spent("cpu_hours", "CPU-hours", labels.hours, "threads x hours, all seeds, also failed ones", essential=True),
        spent("gpu_hours", "GPU-hours", labels.hours, "devices x hours, all seeds, also failed ones", essential=True),
    ]  # fmt: skip
    columns = [c for c in columns if c.key not in OPTIONAL or any(c.cell(row).value is not None for row in board.rows)]
    title = f"{board.title}: cost, tier {board.tier}"
    table = Table(f"cost_{board.task}", title, columns, stamp=stamp(board.tier, board.result))
    described = "; ".join(
        f"{'' if one_class else f'({letter}) '}{device}, {precision}, batch {batch}"
        for (device, precision, batch), letter in classes.items()
    )
    if classes:
        load = _of_load([speed.background_load for speed in speeds])
        table.notes.append(f"Throughput was measured in a separate process: {described}. {load}".rstrip())
        if not one_class:
            table.notes.append("Throughput compares only within a class, so it is not ranked.")
    devices = sorted({row.cost.device for row in board.rows if row.cost})
    if devices:
        table.notes.append(f"Runs were made on: {'; '.join(devices)}.")
    return table.fill(_grouped(board))


def claims_table(verdicts: Sequence[Verdict], tier: str, result: bool) -> Table:
    """Return every claim with verdict, effect, interval, the paper's own effect, and the relevant deviations."""

    def effect(v: Verdict, value: float | None) -> str:
        return labels.effect(value, v.effect_kind, v.decimals)

    def smallest(v: Verdict) -> str:
        return (
            effect(v, 1 + v.smallest_effect)
            if v.effect_kind == "ratio"
            else labels.number(v.smallest_effect, v.decimals)
        )

    def needed(v: Verdict) -> Cell:
        return Cell(need_text(v) or "–", v.needed)

    columns = [
        Column("claim", "Claim", False, cell=lambda v: Cell(v.claim)),
        Column("statement", "Statement", False, wrap=True, cell=lambda v: Cell(v.statement)),
        Column("verdict", "Verdict", False, essential=True, cell=lambda v: Cell(v.adjusted)),
        Column("raw", "Before Holm", False, cell=lambda v: Cell(v.raw)),
        Column("effect", "Effect", True, False, essential=True, cell=lambda v: Cell(v.effect_text, v.effect)),
        Column(
            "interval",
            "95 % interval",
            True,
            False,
            essential=True,
            cell=lambda v: Cell(labels.interval(v.interval, v.effect_kind, v.decimals)),
        ),
        Column(
            "reported",
            "Reported",
            True,
            False,
            "the paper's own effect",
            essential=True,
            cell=lambda v: number(v.reported_effect, lambda x: effect(v, x)),
        ),
        Column("smallest", "Smallest of interest", True, False, cell=lambda v: Cell(smallest(v), v.smallest_effect)),
        Column(
            "p",
            "p (Holm)",
            True,
            True,
            "of the statement, compare with 0.05",
            cell=lambda v: number(v.p_holm, labels.p_value),
        ),
        Column(
            "p_against",
            "p against (Holm)",
            True,
            True,
            "of the denial, compare with 0.05",
            cell=lambda v: number(v.p_against_holm, labels.p_value),
        ),
        Column("share", "By BH", False, True, "over all papers; never the verdict", cell=lambda v: Cell(v.by_share)),
        Column("n", "n", essential=True, cell=lambda v: Cell(v.evidence_text, v.n)),
        Column("needed", "Would need", False, True, "for 80 % power at the present estimate", cell=needed),
        Column("data", "Data", False, cell=lambda v: Cell("; ".join(v.data) or "–")),
        Column("deviations", "Deviations", False, cell=lambda v: Cell(", ".join(map(str, v.deviations)) or "–")),
        Column("reason", "Why", False, wrap=True, cell=lambda v: Cell(v.reason)),
        Column("warnings", "Warnings", False, wrap=True, cell=lambda v: Cell("; ".join(v.warnings) or "–")),
    ]
    by_paper: dict[str, list[tuple[str, Verdict]]] = {}
    for v in verdicts:
        by_paper.setdefault(v.paper, []).append((v.address, v))
    notes = [
        "The verdict shown is adjusted by Holm over the tested claims of its paper; 'before Holm' is the "
        "same claim on its own. p-values are sequential, over all looks; effect and interval are of the last one. "
        "'By BH' adjusts over all papers instead (Benjamini and Hochberg): at most 5 % of the decisions are expected "
        "to be false, but a single paper may err more often. "
        "Effects are subject minus reference (or their quotient), paired by seed. "
        "Numbers under 'deviations' are those of the paper's README.",
    ]
    if not verdicts:
        notes.append("No claim belongs to the chosen papers.")
    table = Table("claims", f"Claims and verdicts, tier {tier}", columns, [], notes, stamp(tier, result))
    return table.fill(by_paper.items())
