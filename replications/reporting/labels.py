"""Formats of numbers and names, shared by all tables, plots and pages."""

import math
import re
from collections.abc import Iterable, Mapping

from replications.datasets import registry
from replications.records import RunRecord
from replications.tasks.base import Metric, Task

BUSY = 0.2  # load by other programs (share of the machine) above which a time is unreliable
NOT_A_RESULT = "not a result"
CHECKED = "checked, not sampled"
ROLE_TITLES = {"method": "Methods", "baseline": "Baselines", "ablation": "Ablations"}
CHANGED_SET_UP = "changed set-up"  # in the category of a run made with --set


def metric_of(task: Task, key: str) -> Metric:
    """Return the metric from the task's table, or a plain one with its key as the title if the table has none."""
    try:
        return task.metrics[key]
    except KeyError:
        return Metric(key.replace("_", " "), "", True, "")


def with_unit(title: str, unit: str) -> str:
    """``Accuracy (%)``; the unit is omitted if it is empty or already in the title."""
    named = re.search(rf"(?<!\w){re.escape(unit)}(?!\w)", title, re.IGNORECASE)
    return title if not unit or named else f"{title} ({unit})"


def effect_unit(unit: str, kind: str) -> str:
    """Unit of an effect: differences of percentages are points, quotients have none."""
    return "" if kind == "ratio" else "points" if unit == "%" else unit


FIXED = 6  # decimals: rounding errors have more, and are shown as 2.1e-13


def number(value: float | None, decimals: int = 2) -> str:
    """``97.45``, with more than six decimals ``2.1e-13``; an empty string for None."""
    if value is None:
        return ""
    if decimals <= FIXED:
        return f"{value:.{decimals}f}"
    return f"{value:.2g}" if value else "0"


def effect(value: float | None, kind: str, decimals: int = 2) -> str:
    """``+0.31`` or ``−0.31`` for a difference, ``×1.25`` for a quotient. A difference that rounds to
    0 has no sign; a quotient has two significant digits or more, since none is 0 (``×0.00012``), and from 10 on
    as many as below (``×142.2``).
    """
    if value is None:
        return ""
    if kind == "ratio":
        if 0 < value < 10 ** (1 - decimals):
            return f"×{value:#.2g}"
        return f"×{value:.{max(0, decimals - int(math.log10(max(value, 1))))}f}"
    text = number(value, decimals)
    if not text.strip("-0."):
        return text.lstrip("-")
    return f"−{text[1:]}" if value < 0 else f"+{text}"


def interval(bounds: tuple[float, float] | None, kind: str, decimals: int = 2) -> str:
    """``[+0.10, +0.52]``, or a dash if there is none."""
    return "–" if bounds is None else f"[{', '.join(effect(bound, kind, decimals) for bound in bounds)}]"


def verdict(adjusted: str, raw: str) -> str:
    """``inconclusive (alone: reproduced)`` if the adjustment for several claims changed the verdict."""
    return adjusted if adjusted == raw else f"{adjusted} (alone: {raw})"


def seeds(of: Iterable[int]) -> str:
    """``seed 3``, ``seeds 1, 4``."""
    of = sorted(of)
    return f"seed{'s' if len(of) > 1 else ''} {', '.join(map(str, of))}"


def look(number: int) -> str:
    """``first`` to ``fourth``."""
    return ("first", "second", "third", "fourth")[number - 1]


def p_value(p: float | None) -> str:
    """Two significant digits down to 0.001."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def short(value: float | None) -> str:
    """Three significant digits with a prefix: ``1.23 M``; empty for None."""
    if value is None:
        return ""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{_three(value / size)} {letter}"
    return _three(value)


def _three(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    value = float(f"{value:.2e}")
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))}f}"


def mebibytes(value: float | None) -> str:
    """Bytes as MiB, or GiB from 10 GiB."""
    if value is None:
        return ""
    return f"{value / 2**30:.1f} GiB" if value >= 10 * 2**30 else f"{value / 2**20:.0f} MiB"


def data_name(record: RunRecord, role: str) -> str:
    """Name of the data that a record used in a role (train, test, ...): its title, by the record or the registry."""
    name = record.data.get(role)
    key = record.spec.data.get(role, "")
    if isinstance(name, Mapping):
        name, key = name.get("title"), name.get("set") or key
    if not name and len(set(record.spec.data.values())) == 1:
        name = record.data.get("title")
    known = registry.load().sets.get(key)
    return str(name or (known and known.title) or key)


def category(record: RunRecord) -> str | None:
    """The protocol's category, and the changes set by hand to the tier's data, recipe and task: numbers are comparable
    only if both agree. Model options may differ, as methods do (see `changed_options`).
    """
    changes = [change for change in record.spec.changes if not change.startswith("options.")]
    changed = CHANGED_SET_UP + (f": {', '.join(changes)}" if changes else "") if record.spec.changes else None
    return " · ".join(filter(None, (record.category, changed))) or None


def changed_options(record: RunRecord) -> str:
    """The method's options that were set by hand (``--set``)."""
    return ", ".join(change.removeprefix("options.") for change in record.spec.changes if change.startswith("options."))


def all_data(record: RunRecord) -> str:
    """``train → test`` of a record, or its only data. Sets of other roles are shown if it has neither."""
    roles = [role for role in ("train", "test") if role in record.spec.data] or record.spec.data
    names = dict.fromkeys(data_name(record, role) for role in roles)
    return " → ".join(names)


def device_class(record) -> str:
    """The accelerator's name, or the processor's for CPU runs."""
    if record.provenance is None:
        return "unknown device"
    return record.provenance.cpu if record.provenance.device_kind == "cpu" else record.provenance.device


def percent(value: float) -> str:
    """A share from 0 to 1 in percent, one decimal."""
    return f"{100 * value:.1f}"


def minutes(value: float) -> str:
    """Whole minutes, or two significant digits below ten."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"


def hours(value: float | None) -> str:
    """Hours with two decimals, or two significant digits below one."""
    return "" if value is None else f"{value:.2f}" if value >= 1 else f"{value:.2g}"
