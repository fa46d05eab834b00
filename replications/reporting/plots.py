"""Plots that every task has: score curves, quality against cost, training curves."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator

from replications.reporting import labels, style
from replications.reporting.leaderboard import Leaderboard, MetricCell, MetricColumn, Row
from replications.reporting.results import Records
from replications.tasks.log_axis import log_axis, round_values

GRID_POINTS = 240


def score_curves(board: Leaderboard, records: Records, name: str) -> Figure | None:
    """Curves of the records (ROC, ...), mean over seeds; bands of the main methods reach from least to
    greatest seed.

    A ROC curve's false accept rate is drawn on a log scale: at a linear one, good verifiers all look alike.
    """
    panels = [
        (title, chosen)
        for title, rows in board.sections()
        if (chosen := [row for row in rows if _curves(records, row.address, name)])
    ]
    if not panels:
        return None
    looks = style.looks(row.address for row in board.rows)
    figure = Figure(figsize=(style.WIDTH, 4.3 * len(panels)), layout="constrained")
    for axes, (title, rows) in zip(np.atleast_1d(figure.subplots(len(panels), 1)), panels, strict=True):
        curves = {row.address: _curves(records, row.address, name) for row in rows}
        example = next(iter(curves.values()))[0]
        log = name.startswith("roc")
        positive = [x for of in curves.values() for curve in of for x in curve.x if x > 0]
        low, high = (max(min(positive), 1e-6), 1.0) if log else (min(positive), max(positive))
        grid = np.geomspace(low, high, GRID_POINTS) if log else np.linspace(low, high, GRID_POINTS)
        drawn = []
        for row in rows:
            look, main = looks[row.address], row.role != "ablation"
            beyond = {} if log else {"left": np.nan, "right": np.nan}  # a curve ends where it ends
            ys = np.array([np.interp(grid, curve.x, curve.y, **beyond) for curve in curves[row.address]])
            line = axes.plot(
                grid,
                ys.mean(0),
                color=look.colour,
                linestyle=look.dash,
                linewidth=1.8 if main else 1.0,
                alpha=1 if main else 0.75,
            )[0]
            if main and len(ys) > 1:
                axes.fill_between(grid, ys.min(0), ys.max(0), color=look.colour, alpha=0.12, linewidth=0)
            order = ys.mean(0)[np.searchsorted(grid, 0.01)] if log else np.mean([c.y[-1] for c in curves[row.address]])
            drawn.append((float(order), line, row.address))
        drawn.sort(key=lambda entry: -entry[0])
        axes.set(xlim=(low, high), title="\n".join(textwrap.wrap(title, 70, max_lines=2, placeholder=" …")))
        axes.set_xlabel(example.x_label + (" (log scale)" if log else ""))
        axes.set_ylabel(example.y_label)
        if log:
            axes.set(ylim=(0, 1.005))
            log_axis(axes.xaxis, lambda x, _: f"{100 * x:g} %")
            axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:g} %")
            axes.plot(grid, grid, color=style.GREY, linewidth=0.8, linestyle=(0, (1, 2)))
            axes.annotate("chance", (0.3, 0.3), (4, -12), textcoords="offset points", color=style.GREY, fontsize=7.5)
        lines, names = [line for _, line, _ in drawn], [address for *_, address in drawn]
        heading = "ordered by true accept rate\nat a false accept rate of 1 %" if log else None
        _legend(axes, lines, names, heading)
    return figure


def _curves(records: Records, address: str, name: str) -> list:
    found = [record.curves[name] for record in records.finished(address).values() if name in record.curves]
    return [curve for curve in found if len(curve.x) > 1]


def _legend(axes, handles: Sequence, names: Sequence[str], title: str | None = None) -> None:
    legend = axes.legend(handles, names, loc="upper left", bbox_to_anchor=(1.01, 1.02), title=title, handlelength=2.6)
    legend._legend_box.align = "left"
    legend.get_title().set(fontsize=7.5, color=style.GREY)


def cost_plot(board: Leaderboard) -> Figure | None:
    """The primary metric against FLOPs of a sample at test time and against training time, a panel for each
    device.
    """
    metric = next((column for column in board.columns if column.key == board.primary_metric), None)
    rows = [row for row in board.rows if row.cost and board.primary_metric in row.metrics]
    if metric is None or not rows:
        return None
    panels: list[tuple[str, list[tuple[Row, float]]]] = []
    flops = [(row, row.cost.flops_per_sample) for row in rows if row.cost.flops_per_sample]
    if flops:
        panels.append(("Forward FLOPs per sample", flops))
    for device in dict.fromkeys(row.cost.device for row in rows):
        timed = [(r, r.cost.train_seconds / 60) for r in rows if r.cost.device == device and r.cost.train_seconds]
        if timed:
            panels.append((f"Training time of a run (minutes)\n{device}", timed))
    if not panels:
        return None
    looks = style.looks(row.address for row in board.rows)
    figure = Figure(figsize=(style.WIDTH, 4.2), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    spread = _spread_errors(all_axes[0], metric, [row.metrics[board.primary_metric] for row in rows])
    for axes, (x_label, points) in zip(all_axes, panels, strict=True):
        for row, x in points:
            cell, look = row.metrics[board.primary_metric], looks[row.address]
            axes.errorbar(
                x, cell.mean, yerr=cell.half_width, fmt=look.marker, color=look.colour, markersize=6.5,
                markerfacecolor=look.colour if row.role != "ablation" else "white", elinewidth=0.9,
            )  # fmt: skip
        xs = [x for _, x in points]
        axes.set_xlabel(x_label)
        label = EngFormatter() if "FLOPs" in x_label else (lambda x, _: f"{x:g}")
        if max(xs) > 4 * min(xs):
            log_axis(axes.xaxis, label)
        else:
            axes.set_xlim(0, 1.1 * max(xs))
            axes.xaxis.set_major_formatter(label)
    arrow = "higher" if metric.higher_is_better else "lower"
    scale = ", log scale of the error" if spread else ""
    all_axes[0].set_ylabel(f"{labels.with_unit(metric.title, metric.unit)}, {arrow} is better{scale}")
    shown = list({row.address: row for _, points in panels for row, _ in points}.values())
    shown.sort(key=lambda r: r.metrics[board.primary_metric].mean, reverse=metric.higher_is_better)
    handles = [
        Line2D(
            [], [], linestyle="", marker=looks[r.address].marker, color=looks[r.address].colour,
            markersize=6.5,
            markerfacecolor=looks[r.address].colour if r.role != "ablation" else "white",
        )
        for r in shown
    ]  # fmt: skip
    bars = "bars: 95 % t interval over seeds\nopen: ablation"
    _legend(all_axes[-1], handles, [row.address for row in shown], bars)
    return figure


def _spread_errors(axes, metric: MetricColumn, cells: Sequence[MetricCell]) -> bool:
    """Where percentages come near 100, draw the remaining error on a log scale, so that 99 and 99.8
    differ.
    """
    means = [cell.mean for cell in cells]
    if metric.unit != "%" or not metric.higher_is_better or not 90 < max(means) < 100:
        return False
    ends = [cell.mean + side * (cell.half_width or 0) for cell in cells for side in (-1, 1)]
    least_error = (100 - max(means)) / 2
    axes.set_yscale(
        "function",
        functions=(
            lambda y: -np.log(np.maximum(100 - y, least_error / 4)),
            lambda z: 100 - np.exp(-z),
        ),
    )
    most_error = 1.2 * (100 - max(0.0, min(ends)))
    axes.set_ylim(100 - most_error, 100 - least_error)
    ticks = [100 - error for error in round_values(least_error, min(most_error, 100.0), 9)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    return True


def training_curves(board: Leaderboard, records: Records, stage: str, split: str, key: str) -> Figure | None:
    """A logged quantity against epochs: a panel a paper, its methods in colour, all others in grey behind
    them.

    Lines are means over seeds, bands reach from the least to the greatest seed.
    """
    series = {row.address: s for row in board.rows if (s := _series(records, row.address, stage, split, key))}
    if not series:
        return None
    looks = style.looks(row.address for row in board.rows)
    papers = dict.fromkeys(address.partition("/")[0] for address in series)
    columns = min(4, len(papers))
    rows = -(-len(papers) // columns)
    figure = Figure(figsize=(style.WIDTH, 0.5 + 2.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    lows = [low.min() for _, _, low, _ in series.values()]
    highs = [high.max() for _, _, _, high in series.values()]
    log = split == "train" and min(lows) > 0 and max(highs) > 8 * min(lows)
    for axes, paper in zip(grid[: len(papers)], papers, strict=True):
        for address, (x, mean, low, high) in series.items():
            look = looks[address]
            if address.partition("/")[0] != paper:
                axes.plot(x, mean, color=style.LIGHT, linewidth=0.7, zorder=1)
                continue
            label = address.partition("/")[2]
            axes.plot(x, mean, color=look.colour, linestyle=look.dash, linewidth=1.5, label=label, zorder=3)
            axes.fill_between(x, low, high, color=look.colour, alpha=0.2, linewidth=0, zorder=2)
        if log:
            log_axis(axes.yaxis)
        axes.set_title(paper)
        axes.legend(loc="best", fontsize=7, handlelength=1.8, labelspacing=0.25)
    for axes in grid[len(papers) :]:
        axes.axis("off")
    metric = next((column for column in board.columns if column.key == key), None)
    name = labels.with_unit(metric.title, metric.unit) if metric else key.replace("_", " ")
    where = "training" if split == "train" else split
    figure.supylabel(f"{name}, {where}{' (log scale)' if log else ''}", fontsize=8.5)
    figure.supxlabel("epoch", fontsize=8.5)
    return figure


def quantities(board: Leaderboard, records: Records) -> list[tuple[str, str, str]]:
    """(stage, split, key) worth a plot: the training loss and the validated primary metric of every stage."""
    found = dict.fromkeys(
        (point.stage, point.split, key)
        for row in board.rows
        for record in records.finished(row.address).values()
        for point in record.history
        for key in point.values
        if (point.split, key) in (("train", "loss"), ("validation", board.primary_metric))
    )
    return list(found)


def _series(records: Records, address: str, stage: str, split: str, key: str):
    """(epoch, mean, least, greatest) over the steps that all seeds logged; None where there is none."""
    by_seed = [
        {
            p.step: (p.epoch, p.values[key])
            for p in record.history
            if (p.stage, p.split) == (stage, split) and key in p.values
        }
        for record in records.finished(address).values()
    ]
    by_seed = [points for points in by_seed if points]
    steps = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    if len(steps) < 2:
        return None
    values = np.array([[points[step][1] for step in steps] for points in by_seed])
    epochs = np.array([by_seed[0][step][0] for step in steps])
    return epochs, values.mean(0), values.min(0), values.max(0)
