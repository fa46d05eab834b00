"""Readable tables from leaderboards and verdicts.

A `Table` holds cells with the text a reader sees and the number behind it; the page, the terminal and the
files are made from the same tables, so they cannot disagree.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from replications.reporting import labels
from replications.reporting.leaderboard import Leaderboard, Row
from replications.reporting.verdicts import Verdict

BUSY_MARK = " †"
STAMP = "NOT A RESULT: tier {tier} only shows that the plumbing works."


@dataclass(frozen=True)
class Cell:
    """`value` sorts the column; None where a cell has no number. `hint` is small print, shown on the page
    only.
    """

    text: str
    value: float | None = None
    hint: str = ""


@dataclass(frozen=True)
class Column:
    """`sortable` is false where cells must not be ranked against each other; `wrap` marks sentences. Where a table is
    too wide, the `essential` columns stay.
    """

    key: str
    title: str
    numeric: bool = True
    sortable: bool = True
    description: str = ""
    wrap: bool = False
    essential: bool = False


@dataclass
class Table:
    """`sections` are (title, rows); each row begins with its key, which is not shown."""

    name: str
    title: str
    columns: list[Column]
    sections: list[tuple[str, list[tuple[str, list[Cell]]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stamp: str = ""


def stamp(tier: str, result: bool) -> str:
    """The sentence that marks everything of a plumbing tier; empty for results."""
    return "" if result else STAMP.format(tier=tier)


def fitting(widths: Sequence[float], essential: Collection[int], room: float) -> list[int]:
    """Places of the columns to show: the `essential` ones, and in their order as many others as the `room` is for."""
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


def _grouped(board: Leaderboard, cells_of) -> list[tuple[str, list[tuple[str, list[Cell]]]]]:
    """Sections of comparable rows, split by role: methods, baselines, ablations."""
    sections = []
    for title, rows in board.sections():
        for role, role_title in labels.ROLE_TITLES.items():
            chosen = [row for row in rows if row.role == role]
            if chosen:
                heading = " — ".join(filter(None, (role_title, title)))
                sections.append((heading, [(row.address, cells_of(row)) for row in chosen]))
    return sections


def quality_table(board: Leaderboard) -> Table:
    """Mean ± half width of the 95 % t interval over seeds, for each metric of the task's table."""

    changed = any(row.changed_options for row in board.rows)

    def cells(row: Row) -> list[Cell]:
        shown = [Cell(row.address, hint=row.title)]
        for column in board.columns:
            cell = row.metrics.get(column.key)
            mark = BUSY_MARK if column.timed and (row.background_load or 0) > labels.BUSY else ""
            text = plus_minus(cell.mean, cell.half_width, column.decimals, cell.factor) + mark if cell else "–"
            shown.append(Cell(text, cell and cell.mean))
        changed_here = [Cell(row.changed_options or "–")] if changed else []
        return [*shown, Cell(row.status, len(row.finished)), Cell(row.train_data or "–"), *changed_here]

    metrics = [
        Column(
            c.key,
            f"{labels.with_unit(c.title, c.unit)} {'↑' if c.higher_is_better else '↓'}",
            description=c.description,
            essential=c.key == board.primary_metric,
        )
        for c in board.columns
    ]
    columns = [
        Column("method", "Method", numeric=False),
        *metrics,
        Column("seeds", "Seeds", numeric=False, essential=True),
        Column("train", "Training data", numeric=False),
        *([Column("changed", "Changed options", numeric=False, wrap=True)] if changed else []),
    ]
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
    return Table(
        f"leaderboard_{board.task}",
        f"{board.title}: leaderboard, tier {board.tier}",
        columns,
        _grouped(board, cells),
        notes,
        stamp(board.tier, board.result),
    )


def _of_load(loads: Sequence[float | None]) -> str:
    """What the records say of others on the machine while something was timed."""
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
    """What the rows cost. Throughput carries the letter of its class and is never ranked across classes."""
    classes = speed_classes(board)
    one_class = len(classes) <= 1
    speeds = [row.speed for row in board.rows if row.speed and row.speed.status == "measured"]
    ranked = one_class and not any(speed.busy for speed in speeds)
    several_devices = len({row.cost.device for row in board.rows if row.cost}) > 1

    def cells(row: Row) -> list[Cell]:
        cost, speed = row.cost, row.speed
        letter = "" if one_class or not speed else f" ({classes[speed.comparable]})"
        letter += BUSY_MARK if speed and speed.busy else ""

        def rate(value: float | None) -> Cell:
            if speed and speed.status != "measured":
                return Cell(speed.status)
            return Cell(labels.short(value) + letter, value) if value is not None else Cell("–")

        def of(value: float | None, text: str) -> Cell:
            return Cell(text or "–", value)

        memory = cost and cost.peak_memory_bytes
        wait = cost and cost.data_wait
        return [
            Cell(row.address),
            of(cost and cost.parameters, labels.short(cost and cost.parameters)),
            of(cost and cost.model_parameters, labels.short(cost and cost.model_parameters)),
            of(cost and cost.flops_per_sample, labels.short(cost and cost.flops_per_sample)),
            rate(speed and speed.train_samples_per_second),
            rate(speed and speed.inference_samples_per_second),
            Cell("" if not speed or speed.mfu is None else f"{100 * speed.mfu:.1f}{letter}", speed and speed.mfu),
            of(memory, labels.mebibytes(memory)),
            of(wait, "" if wait is None else f"{100 * wait:.1f}"),
            of(cost and cost.energy_joules, labels.short(cost and cost.energy_joules)),
            of(cost and cost.cpu_hours, labels.hours(cost and cost.cpu_hours)),
            of(cost and cost.gpu_hours, labels.hours(cost and cost.gpu_hours)),
        ]

    columns = [
        Column("method", "Method", numeric=False),
        Column("parameters", "Parameters", description="trainable, heads included"),
        Column("model_parameters", "At test time", description="parameters kept at test time"),
        Column("flops", "FLOPs/sample", description="forward pass at test time; one multiply-add is two"),
        Column("train_rate", "Training samples/s", sortable=ranked, description="in a process of its own"),
        Column("inference_rate", "Inference samples/s", sortable=ranked, description="in a process of its own"),
        Column("mfu", "MFU (%)", sortable=ranked, description="blank: peak of the device unknown"),
        Column(
            "memory",
            "Peak memory",
            sortable=not several_devices,
            description="resident on CPU, allocated on GPU",
        ),
        Column("wait", "Data wait (%)", description="of the training time"),
        Column("energy", "Energy (J/run)"),
        Column("cpu_hours", "CPU-hours", description="threads x hours, all seeds, also failed ones", essential=True),
        Column("gpu_hours", "GPU-hours", description="devices x hours, all seeds, also failed ones", essential=True),
    ]
    table = Table(
        f"cost_{board.task}",
        f"{board.title}: cost, tier {board.tier}",
        columns,
        _grouped(board, cells),
        stamp=stamp(board.tier, board.result),
    )
    described = "; ".join(
        f"{'' if one_class else f'({letter}) '}{device}, {precision}, batch {batch}"
        for (device, precision, batch), letter in classes.items()
    )
    if classes:
        load = _of_load([speed.background_load for speed in speeds])
        table.notes.append(f"Throughput was measured in a process of its own: {described}. {load}".rstrip())
        if not one_class:
            table.notes.append("Throughput compares only within a class, so it is not ranked.")
    devices = sorted({row.cost.device for row in board.rows if row.cost})
    if devices:
        table.notes.append(f"Runs were made on: {'; '.join(devices)}.")
    return _without_empty(table, {"energy", "gpu_hours", "cpu_hours", "wait"})


def _without_empty(table: Table, optional: set[str]) -> Table:
    """Leave out optional columns in which no row has a number."""
    rows = [cells for _, section in table.sections for _, cells in section]
    keep = [
        i
        for i, column in enumerate(table.columns)
        if column.key not in optional or any(cells[i].value is not None for cells in rows)
    ]
    table.columns = [table.columns[i] for i in keep]
    table.sections = [(t, [(key, [cells[i] for i in keep]) for key, cells in rows]) for t, rows in table.sections]
    return table


def claims_table(verdicts: Sequence[Verdict], tier: str, result: bool) -> Table:
    """Every claim with verdict, effect, interval, the paper's own effect, and the deviations that bear on
    it.
    """
    columns = [
        Column("claim", "Claim", numeric=False),
        Column("statement", "Statement", numeric=False, wrap=True),
        Column("verdict", "Verdict", numeric=False, essential=True),
        Column("raw", "Before Holm", numeric=False),
        Column("effect", "Effect", sortable=False, essential=True),
        Column("interval", "95 % interval", sortable=False, essential=True),
        Column("reported", "Reported", sortable=False, description="the paper's own effect", essential=True),
        Column("smallest", "Smallest of interest", sortable=False),
        Column("p", "p (Holm)", description="of the statement, compare with 0.05"),
        Column("p_against", "p against (Holm)", description="of the denial, compare with 0.05"),
        Column("n", "n", essential=True),
        Column("data", "Data", numeric=False),
        Column("deviations", "Deviations", numeric=False),
        Column("reason", "Why", numeric=False, wrap=True),
        Column("warnings", "Warnings", numeric=False, wrap=True),
    ]
    sections: dict[str, list] = {}
    for v in verdicts:
        smallest = labels.effect(1 + v.smallest_effect, "ratio", v.decimals) if v.effect_kind == "ratio" else ""
        cells = [
            Cell(v.claim),
            Cell(v.statement),
            Cell(v.adjusted),
            Cell(v.raw),
            Cell(v.effect_text, v.effect),
            Cell(labels.interval(v.interval, v.effect_kind, v.decimals)),
            Cell(labels.effect(v.reported_effect, v.effect_kind, v.decimals) or "–", v.reported_effect),
            Cell(smallest or labels.number(v.smallest_effect, v.decimals), v.smallest_effect),
            Cell(labels.p_value(v.p_holm), v.p_holm),
            Cell(labels.p_value(v.p_against_holm), v.p_against_holm),
            Cell(f"{v.n} {v.replication}" if v.n else "–", v.n),
            Cell("; ".join(v.data) or "–"),
            Cell(", ".join(map(str, v.deviations)) or "–"),
            Cell(v.reason),
            Cell("; ".join(v.warnings) or "–"),
        ]
        sections.setdefault(v.paper, []).append((v.address, cells))
    notes = [
        "The verdict shown is adjusted by Holm over the tested claims of its paper; 'before Holm' is the "
        "same claim on its own. Effects are subject minus reference (or their quotient), paired by seed. "
        "Numbers under 'deviations' are those of the paper's README.",
    ]
    if not verdicts:
        notes.append("No claim belongs to the chosen papers.")
    return Table(
        "claims",
        f"Claims and verdicts, tier {tier}",
        columns,
        list(sections.items()),
        notes,
        stamp(tier, result),
    )
