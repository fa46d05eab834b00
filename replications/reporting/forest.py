"""The forest plot of the claims: effect with interval, the paper's own effect, and lines at zero and ±delta."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from replications.reporting import labels, style
from replications.reporting.verdicts import Verdict
from replications.tasks.log_axis import log_axis

ROW = 0.36  # inches; more where a label has more than two lines
LINE = 0.13  # inches
TINT = "#EAF3EE"


def address_and_sides(v: Verdict) -> str:
    return f"{v.address}\n{_sides(v)}"


def forest_plot(verdicts: Sequence[Verdict], name: Callable[[Verdict], str] = address_and_sides) -> Figure | None:
    """Draw one row per claim, labelled by `name`, and one panel per unit; ratios are on a log scale around 1.

    In the tinted range the claim holds by at least its smallest effect of interest; dashed lines are ±delta. Filled
    markers show the effect, diamonds the paper's own effect. An interval that leaves the panel ends in an arrow.
    """
    shown = [v for v in verdicts if v.effect is not None]
    if not shown:
        return None
    panels: dict[tuple[str, str, str], list[Verdict]] = {}
    for v in shown:
        panels.setdefault((v.effect_kind, v.unit, v.metric_title if not v.unit else ""), []).append(v)
    heights = [_heights(rows, name) for rows in panels.values()]
    inches = [own.sum() * ROW for own in heights]
    figure = Figure(figsize=(style.WIDTH, sum(inches) + 0.5 * len(panels) + 0.4), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=inches)[:, 0]
    for axes, own, ((kind, unit, metric), rows) in zip(grid, heights, panels.items(), strict=True):
        _panel(axes, rows, own, kind, name)
        label = f"Effect, {unit}" if unit else f"Effect on {metric}"
        axes.set_xlabel("Quotient subject / reference (log scale)" if kind == "ratio" else label)
    words = [word for word in style.VERDICTS if any(v.adjusted == word for v in shown)]
    handles = [_marker(word) for word in words]
    names = list(words)
    if any(v.reported_effect is not None for v in shown):
        handles.append(Line2D([], [], linestyle="", marker="d", color="black", markerfacecolor="white", markersize=6))
        names.append("the paper's own effect")
    handles.append(Patch(facecolor=TINT, edgecolor=style.GREY, linestyle="--", linewidth=0.8))
    names.append("claimed range, ±δ dashed")
    figure.legend(
        handles, names, loc="outside upper left", ncols=min(len(names), 4), columnspacing=1.2, handletextpad=0.4
    )
    return figure


def _marker(word: str) -> Line2D:
    colour, marker = style.VERDICTS[word]
    face = "white" if word == "not tested" else colour
    return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=face, markersize=7)


def _delta(v: Verdict) -> tuple[float, float]:
    """The effects -delta and +delta on the plot's scale."""
    if v.effect_kind == "ratio":
        return 1 / (1 + v.smallest_effect), 1 + v.smallest_effect
    return -v.smallest_effect, v.smallest_effect


def _limits(rows: Sequence[Verdict], kind: str) -> tuple[float, float]:
    """Choose limits that show every effect, reported effect and delta; only very wide intervals are cut off."""
    scale, natural = (np.log, np.exp) if kind == "ratio" else (np.asarray, np.asarray)
    null = 1.0 if kind == "ratio" else 0.0
    points = [null, *(x for v in rows for x in (v.effect, v.reported_effect, *_delta(v)) if x is not None)]
    low, high = scale(min(points)), scale(max(points))
    if low == high:  # all effects are the null: there is no other scale
        low, high = low - 1, high + 1
    room = high - low
    ends = [end for v in rows if v.interval for end in v.interval]
    if ends:
        low = max(min(low, scale(min(ends))), low - room)
        high = min(max(high, scale(max(ends))), high + room)
    pad = 0.04 * (high - low)
    return float(natural(low - pad)), float(natural(high + pad))


def _heights(rows: Sequence[Verdict], name: Callable[[Verdict], str]) -> np.ndarray:
    """The rows' heights, in units of ROW, so that no label reaches into the next row."""
    return np.array([max(1.0, (len(name(v).splitlines()) * LINE + 0.02) / ROW) for v in rows])


def _panel(axes, rows: Sequence[Verdict], heights: np.ndarray, kind: str, name: Callable[[Verdict], str]) -> None:
    low, high = _limits(rows, kind)
    centres = heights.cumsum() - heights / 2 - 0.5
    if kind == "ratio":
        log_axis(axes.xaxis, lambda x, _: f"×{x:.3g}")
    axes.set(xlim=(low, high), ylim=(heights.sum() - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    axes.axvline(1 if kind == "ratio" else 0, color="#333333", linewidth=1.0, zorder=2)
    for y, half, v in zip(centres, heights / 2 - 0.08, rows, strict=True):
        colour, marker = style.VERDICTS[v.adjusted]
        minus, plus = _delta(v)
        start = minus if v.direction == "equal" else plus if v.direction == "greater" else low
        end = plus if v.direction == "equal" else high if v.direction == "greater" else minus
        axes.add_patch(Rectangle((start, y - half), end - start, 2 * half, facecolor=TINT, zorder=0, linewidth=0))
        axes.vlines(
            (minus, plus),
            y - half,
            y + half,
            color=style.GREY,
            linestyle=(0, (3, 2)),
            linewidth=0.8,
            zorder=1,
        )
        if v.interval:
            inside = np.clip(v.interval, low, high)
            axes.plot(inside, (y, y), color=colour, linewidth=1.8, solid_capstyle="butt", zorder=3)
            for end, beyond, arrow in ((low, v.interval[0] < low, "<"), (high, v.interval[1] > high, ">")):
                if beyond:
                    axes.plot(end, y, marker=arrow, color=colour, markersize=6, clip_on=False, zorder=4)
        face = "white" if v.adjusted == "not tested" else colour
        axes.plot(v.effect, y, marker=marker, color=colour, markerfacecolor=face, markersize=7, zorder=5)
        if v.reported_effect is not None:
            axes.plot(
                v.reported_effect,
                y - 0.24,
                marker="d",
                color="black",
                markerfacecolor="white",
                markersize=5.5,
                zorder=6,
            )
        interval = f" {labels.interval(v.interval, kind, v.decimals)}" if v.interval else ""
        shown = f"{labels.effect(v.effect, kind, v.decimals)}{interval}"
        axes.annotate(
            f"{shown}\n{v.adjusted}{', exact' if v.evidence == 'exact' else ''}",
            (1, y), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
            fontsize=7.3, linespacing=1.25,
        )  # fmt: skip
    axes.set_yticks(centres, [name(v) for v in rows], fontsize=7.3, linespacing=1.25)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _sides(v: Verdict) -> str:
    """``arcface − softmax``: the compared methods; the claim's own paper is omitted."""

    def name(address: str) -> str:
        paper, _, method = address.partition("/")
        return method if paper in (v.paper, method) else address

    if v.reference is None:
        return f"{name(v.subject)} vs {v.expected:g}"
    return f"{name(v.subject)} {'/' if v.effect_kind == 'ratio' else '−'} {name(v.reference)}"
