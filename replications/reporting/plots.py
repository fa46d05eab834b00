"""The plots of every task: score curves, quality against cost and by seed, training curves."""

import textwrap
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator

from replications.reporting import labels, style
from replications.reporting.leaderboard import Leaderboard, MetricCell, MetricColumn
from replications.reporting.results import Records
from replications.tasks.log_axis import log_axis, round_values

GRID_POINTS = 240


def score_curves(board: Leaderboard, records: Records, name: str) -> Figure | None:
    """Curves of the records (ROC, ...), mean over seeds; bands of the main methods reach from least to
    greatest seed.

    The false accept rate of a ROC curve is on a log scale, since good verifiers are indistinguishable on a linear one.
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
            beyond = {} if log else {"left": np.nan, "right": np.nan}  # no extrapolation beyond a curve's end
            ys = np.array([np.interp(grid, curve.x, curve.y, **beyond) for curve in curves[row.address]])
            weight = {"linewidth": 1.8, "alpha": 1} if main else {"linewidth": 1.0, "alpha": 0.75}
            line = axes.plot(grid, ys.mean(0), color=look.colour, linestyle=look.dash, **weight)[0]
            if main and len(ys) > 1:
                axes.fill_between(grid, ys.min(0), ys.max(0), color=look.colour, alpha=0.12, linewidth=0)
            order = ys.mean(0)[np.searchsorted(grid, 0.01)] if log else np.mean([c.y[-1] for c in curves[row.address]])
            drawn.append((float(order), line, row.address))
        drawn.sort(key=lambda entry: -entry[0])
        axes.set(xlim=(low, high), title=_title(title))
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
    metric = board.column(board.primary_metric)
    rows = [row for row in board.rows if row.cost and board.primary_metric in row.metrics]
    panels = {"Forward FLOPs per sample": [(row, row.cost.flops_per_sample) for row in rows]}
    for row in rows:
        label = f"Training time of a run (minutes)\n{row.cost.device}"
        panels.setdefault(label, []).append((row, (row.cost.train_seconds or 0) / 60))
    panels = {label: drawn for label, points in panels.items() if (drawn := [(row, x) for row, x in points if x])}
    if metric is None or not panels:
        return None
    looks = style.looks(row.address for row in board.rows)
    figure = Figure(figsize=(style.WIDTH, 4.2), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    spread = _spread_errors(all_axes[0], metric, [row.metrics[board.primary_metric] for row in rows])
    handles = {}
    for axes, (x_label, points) in zip(all_axes, panels.items(), strict=True):
        for row, x in points:
            cell, look = row.metrics[board.primary_metric], looks[row.address]
            face = look.colour if row.role != "ablation" else "white"
            marker = {"marker": look.marker, "color": look.colour, "markersize": 6.5, "markerfacecolor": face}
            axes.errorbar(x, cell.mean, yerr=_reach(cell), elinewidth=0.9, **marker)
            handles[row.address] = Line2D([], [], linestyle="", **marker)
        xs = [x for _, x in points]
        axes.set_xlabel(x_label)
        label = EngFormatter() if "FLOPs" in x_label else (lambda x, _: f"{x:g}")
        if max(xs) > 4 * min(xs):
            log_axis(axes.xaxis, label)
        else:
            axes.set_xlim(0, 1.1 * max(xs))
            axes.xaxis.set_major_formatter(label)
    scale = ", log scale of the error" if spread else ""
    all_axes[0].set_ylabel(f"{_named(metric)}{scale}")
    order = sorted(rows, key=lambda r: r.metrics[board.primary_metric].mean, reverse=metric.higher_is_better)
    names = [row.address for row in order if row.address in handles]
    _legend(all_axes[-1], [handles[name] for name in names], names, "bars: 95 % t interval over seeds\nopen: ablation")
    return figure


def seeds_plot(board: Leaderboard) -> Figure | None:
    """Plot the primary metric by seed, a line per method, with mean and 95 % interval, a panel per comparable group.

    None if no method has several seeds.
    """
    import seaborn

    metric = board.column(board.primary_metric)
    panels = [
        (title, chosen)
        for title, rows in board.sections()
        if (chosen := [row for row in rows if board.primary_metric in row.metrics])
    ]
    if metric is None or not any(len(row.finished) > 1 for _, rows in panels for row in rows):
        return None
    looks = style.looks(row.address for row in board.rows)
    heights = [0.22 * len(rows) + 0.3 for _, rows in panels]
    figure = Figure(figsize=(style.WIDTH, sum(heights) + 0.5 * len(panels)), layout="constrained")
    all_axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, rows) in zip(all_axes, panels, strict=True):
        cells = {row.address: row.metrics[board.primary_metric] for row in rows}
        values = pd.DataFrame([(a, value) for a, cell in cells.items() for value in cell.values.values()])
        colours = {address: looks[address].colour for address in cells}
        seaborn.stripplot(
            values, x=1, y=0, hue=0, palette=colours, legend=False, jitter=False, size=4.5, alpha=0.55, ax=axes
        )
        for place, cell in enumerate(cells.values()):
            axes.errorbar(cell.mean, place, xerr=_reach(cell), fmt="|", color="black", markersize=9, elinewidth=0.9)
        axes.set(title=_title(title), xlabel=_named(metric), ylabel="", ylim=(len(rows) - 0.4, -0.6))
        if metric.scale == "log":
            log_axis(axes.xaxis)
    return figure


def _reach(cell: MetricCell) -> list[list[float]]:
    """Return how far the interval reaches below and above the mean, in matplotlib's form for error bars."""
    low, high = cell.interval
    return [[cell.mean - low], [high - cell.mean]]


def _named(metric: MetricColumn) -> str:
    return (
        f"{labels.with_unit(metric.title, metric.unit)}, {'higher' if metric.higher_is_better else 'lower'} is better"
    )


def _title(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 70, max_lines=2, placeholder=" …"))


def _spread_errors(axes, metric: MetricColumn, cells: Sequence[MetricCell]) -> bool:
    """If percentages come near 100, draw the remaining error on a log scale, so that 99 and 99.8 differ visibly."""
    means = [cell.mean for cell in cells]
    if metric.unit != "%" or not metric.higher_is_better or not 90 < max(means) < 100:
        return False
    ends = [end for cell in cells for end in cell.interval]
    least_error = (100 - max(means)) / 2
    forward, back = (lambda y: -np.log(np.maximum(100 - y, least_error / 4))), (lambda z: 100 - np.exp(-z))
    axes.set_yscale("function", functions=(forward, back))
    most_error = 1.2 * (100 - max(0.0, min(ends)))
    axes.set_ylim(100 - most_error, 100 - least_error)
    ticks = [100 - error for error in round_values(least_error, min(most_error, 100.0), 9)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    return True


def training_curves(board: Leaderboard, history: pd.DataFrame, stage: str, split: str, key: str) -> Figure | None:
    """Plot a logged quantity of the tidy `history` against epochs: a panel per paper, its methods in colour, all others
    in grey behind them.

    Lines are means over seeds, bands reach from the least to the greatest seed, over the steps that all seeds logged.
    """
    points = history[(history["stage"] == stage) & (history["split"] == split) & (history["key"] == key)]
    seeds = points.groupby("address")["seed"].nunique()
    lines = points.groupby(["address", "step"], sort=False, as_index=False).agg(
        epoch=("epoch", "first"), n=("seed", "nunique"),
        mean=("value", "mean"), low=("value", "min"), high=("value", "max"),
    )  # fmt: skip
    lines = lines[lines["n"] == lines["address"].map(seeds)].sort_values("step")
    series = {a: line for a, line in lines.groupby("address") if len(line) > 1}
    series = {row.address: series[row.address] for row in board.rows if row.address in series}
    if not series:
        return None
    looks = style.looks(row.address for row in board.rows)
    papers = dict.fromkeys(address.partition("/")[0] for address in series)
    columns = min(4, len(papers))
    rows = -(-len(papers) // columns)
    figure = Figure(figsize=(style.WIDTH, 0.5 + 2.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    low, high = lines["low"].min(), lines["high"].max()
    log = split == "train" and low > 0 and high > 8 * low
    for axes, paper in zip(grid[: len(papers)], papers, strict=True):
        for address, line in series.items():
            own, _, label = address.partition("/")
            if own != paper:
                axes.plot(line["epoch"], line["mean"], color=style.LIGHT, linewidth=0.7, zorder=1)
                continue
            colour, dash = looks[address].colour, looks[address].dash
            axes.plot(line["epoch"], line["mean"], color=colour, linestyle=dash, linewidth=1.5, label=label, zorder=3)
            axes.fill_between(line["epoch"], line["low"], line["high"], color=colour, alpha=0.2, linewidth=0, zorder=2)
        if log:
            log_axis(axes.yaxis)
        axes.set_title(paper)
        frame = {"frameon": True, "framealpha": 0.5, "edgecolor": "none"}  # with many methods no corner is free
        axes.legend(loc="best", fontsize=7, handlelength=1.8, labelspacing=0.25, **frame)
    for axes in grid[len(papers) :]:
        axes.axis("off")
    metric = board.column(key)
    name = labels.with_unit(metric.title, metric.unit) if metric else key.replace("_", " ")
    where = "training" if split == "train" else split
    figure.supylabel(f"{name}, {where}{' (log scale)' if log else ''}", fontsize=8.5)
    figure.supxlabel("epoch", fontsize=8.5)
    return figure


def history(records: Records, addresses: Collection[str]) -> pd.DataFrame:
    """Return the logs of the methods' finished runs, tidy: a row for each run, point and logged `key`."""
    return pd.DataFrame(
        [
            (address, seed, point.stage, point.split, point.step, point.epoch, key, value)
            for address in addresses
            for seed, record in records.finished(address).items()
            for point in record.history
            for key, value in point.values.items()
        ],
        columns=["address", "seed", "stage", "split", "step", "epoch", "key", "value"],
    )


def quantities(board: Leaderboard, history: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return the (stage, split, key) to plot: training loss and validation primary metric of every stage."""
    wanted = (("train", "loss"), ("validation", board.primary_metric))
    found = history[["stage", "split", "key"]].drop_duplicates().itertuples(index=False, name=None)
    return [(stage, split, key) for stage, split, key in found if (split, key) in wanted]
