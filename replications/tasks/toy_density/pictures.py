"""Pictures of toy densities: samples in the plane, paths of the ODE, states of a sampler, divergence by steps."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replications.tasks.base import Album, Picture
from replications.tasks.log_axis import log_axis

SHOWN = 500  # points of a panel
PATHS = 16
STATES = 400  # points of a small panel
BY_STEPS = re.compile(r"kl_(eta0|eta1|larger)_(\d+|all)")
NOISES = {"eta0": "no noise", "eta1": "eta 1", "larger": "larger noise"}
DASHES = {"eta0": "-", "eta1": "--", "larger": ":"}


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records give something for."""
    first = {a: min(runs) for a in album.addresses if (runs := album.runs(a))}
    arrays = {address: found for address, seed in first.items() if (found := album.arrays(address, seed))}
    if arrays:
        yield Picture(
            "samples",
            lambda: samples_figure(arrays, album.width),
            "Samples of each method as points in the plane, over real points.",
            f"The first {SHOWN:,} samples of the first seed by each method's own sampler, on real points in grey.",
            publish=True,
        )
    paths = {address: found for address, found in arrays.items() if "path" in found}
    if paths:
        yield Picture(
            "paths",
            lambda: paths_figure(paths, album.width),
            "Paths of points from noise to samples along the probability-flow ODE, one panel per method.",
            "The probability-flow ODE from noise (open) to samples (filled), first seed; all methods start from equal "
            "noise, scaled to their own. The grey points are real.",
            publish=True,
        )
        yield Picture(
            "states",
            lambda: states_figure(paths, album.width),
            "States of each method's sampler from noise on the left to samples on the right.",
            "States of the sampler from noise (left) to samples (right), first seed. Axes follow the points.",
        )
    stepped = {address: found for address in first if (found := by_steps(album, address))}
    if stepped:
        yield Picture(
            "steps",
            lambda: steps_figure(stepped, album),
            "Divergence from the true density against sampling steps, by the sampler's noise.",
            "KL divergence over cells against the number of steps, geometric means over seeds.",
            publish=True,
        )


def by_steps(album: Album, address: str) -> dict[str, dict[int, float]]:
    """Return the geometric mean over seeds of the divergence, by noise and number of steps."""
    runs = list(album.runs(address).values())
    found: dict[str, dict[int, list[float]]] = {}
    for record in runs:
        for name, value in record.metrics.items():
            if name == "kl":
                match = ("eta0", "10")
            elif BY_STEPS.fullmatch(name):
                match = BY_STEPS.fullmatch(name).groups()
            else:
                continue
            count = record.spec.options["timesteps"] if match[1] == "all" else int(match[1])
            found.setdefault(match[0], {}).setdefault(count, []).append(value)
    if found.keys() <= {"eta0"}:
        return {}
    return {n: {c: float(np.exp(np.log(v).mean())) for c, v in sorted(by.items())} for n, by in found.items()}


def samples_figure(arrays: Mapping[str, Mapping[str, Any]], width: float) -> Figure:
    figure, panels = _panels(len(arrays), width)
    for axes, (address, found) in zip(panels, arrays.items(), strict=True):
        _real(axes, found)
        _points(axes, found["samples"][:SHOWN], "C0")
        axes.set_title(address, fontsize=7)
    return figure


def paths_figure(paths: Mapping[str, Mapping[str, Any]], width: float) -> Figure:
    figure, panels = _panels(len(paths), width)
    for axes, (address, found) in zip(panels, paths.items(), strict=True):
        _real(axes, found)
        path = found["path"]
        axes.plot(*path[::3, :PATHS].transpose(2, 0, 1), color="C0", linewidth=0.5, alpha=0.7)
        axes.scatter(*path[0, :PATHS].T, s=6, facecolors="none", edgecolors="C0", linewidths=0.5)
        axes.scatter(*path[-1, :PATHS].T, s=6, color="C1")
        axes.set_title(address, fontsize=7)
    return figure


def states_figure(strips: Mapping[str, Mapping[str, Any]], width: float) -> Figure:
    count = max(len(found["strip"]) for found in strips.values())
    figure = Figure(figsize=(width, width / count * len(strips) + 0.2), layout="constrained")
    grid = figure.subplots(len(strips), count, squeeze=False)
    for row, (address, found) in zip(grid, strips.items(), strict=True):
        for axes in row:
            axes.axis("off")
        for axes, points in zip(row[: len(found["strip"])], found["strip"], strict=True):
            axes.axis("on")
            _points(axes, points[:STATES], "C0")
            _bare(axes, 1.3 * float(np.quantile(np.abs(points), 0.99)))
        row[0].set_ylabel(address.replace("/", "/\n"), fontsize=6)
    return figure


def steps_figure(stepped: Mapping[str, Mapping[str, Mapping[int, float]]], album: Album) -> Figure:
    figure = Figure(figsize=(album.width, 0.45 * album.width), layout="constrained")
    axes = figure.subplots()
    for address, noises in stepped.items():
        look = album.look(address)
        for noise, values in noises.items():
            axes.plot(
                list(values),
                list(values.values()),
                color=look.colour,
                marker=look.marker,
                markersize=4,
                linestyle=DASHES[noise],
                label=f"{address}, {NOISES[noise]}",
            )
    log_axis(axes.xaxis)
    log_axis(axes.yaxis)
    axes.set(xlabel="sampling steps", ylabel="KL over cells (nats)")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _panels(count: int, width: float) -> tuple[Figure, Sequence[Axes]]:
    columns = min(count, 4)
    lines = -(-count // columns)
    figure = Figure(figsize=(width, (width / columns + 0.15) * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.axis("off")
    return figure, panels[:count]


def _real(axes: Axes, found: Mapping[str, Any]) -> None:
    """Draw the real points in grey, and frame the panel by them."""
    _points(axes, found["real"][:SHOWN], "0.8")
    _bare(axes, float(found["reach"]))


def _points(axes: Axes, points: np.ndarray, colour: str) -> None:
    axes.scatter(*points.T, s=0.6, color=colour, linewidths=0, rasterized=True)


def _bare(axes: Axes, reach: float) -> None:
    axes.set(xticks=[], yticks=[], xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.grid(False)
