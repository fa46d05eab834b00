"""Pictures of gradient estimation: bias and variance by temperature, variance by dimension, the network's training."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replications.records import RunRecord
from replications.tasks.base import Album, Look, Picture
from replications.tasks.log_axis import log_axis

Runs = Mapping[int, RunRecord]
METRIC = re.compile(r"(bias|variance)_(tau|dim)(\d+(?:p\d+)?)")


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the runs have something for."""
    rows = {address: runs for address in album.addresses if (runs := album.runs(address))}
    if one_hot := {a: runs for a, runs in rows.items() if figures(runs, "variance") is not None}:
        yield Picture(
            "bias_and_variance",
            lambda: bias_and_variance(one_hot, album),
            "Relative bias against relative variance of each estimator; relaxations along their temperatures.",
            "One-hot variables: bias and variance at equal evaluations, both relative to the exact gradient, geometric "
            "means over seeds. A line joins the temperatures of a relaxation. Without bias, what is left of it is its "
            "Monte-Carlo error.",
            publish=True,
        )
    if gaussian := {a: runs for a, runs in rows.items() if by_number(runs, "variance", "dim")}:
        yield Picture(
            "variance_by_dimension",
            lambda: variance_by_dimension(gaussian, album),
            "Relative variance against the dimension of a Gaussian, by estimator.",
            "Gaussians: variance at equal evaluations, relative to the exact gradient, with the range of the seeds.",
            publish=True,
        )
    if trained := {a: runs for a, runs in rows.items() if bounds(runs)[0].size}:
        yield Picture(
            "training",
            lambda: training(trained, album),
            "Minus the bound on validation images at hard draws, against training steps, by estimator.",
            "Categorical VAE: minus the bound of validation images at hard draws, mean over seeds with their range.",
            publish=True,
        )


def figures(runs: Runs, metric: str) -> np.ndarray | None:
    """Return a metric of each seed, None where it is missing."""
    found = [run.metrics[metric] for run in runs.values() if metric in run.metrics]
    return np.array(found) if found else None


def by_number(runs: Runs, figure: str, kind: str) -> dict[float, np.ndarray]:
    """Return a figure of each seed by temperature (``tau``) or dimension (``dim``), rising."""
    names = sorted({name for run in runs.values() for name in run.metrics})
    matches = [m for m in map(METRIC.fullmatch, names) if m and m[1] == figure and m[2] == kind]
    return dict(sorted((float(m[3].replace("p", ".")), figures(runs, m[0])) for m in matches))


def bounds(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps at which the network was validated and minus the bound there, ``[seeds, steps]``."""
    curves = [
        {p.step: p.values["nelbo"] for p in run.history if p.stage == "train" and "nelbo" in p.values}
        for run in runs.values()
    ]
    steps = sorted(set.intersection(*map(set, curves)))
    return np.array(steps), np.array([[curve[step] for step in steps] for curve in curves])


def _mean(values: np.ndarray) -> float:
    return float(np.exp(np.log(values).mean()))


def _style(look: Look) -> dict:
    return {"color": look.colour, "marker": look.marker, "linestyle": look.dash, "markersize": 4}


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def bias_and_variance(rows: Mapping[str, Runs], album: Album) -> Figure:
    """Each estimator as a point, or as a line over its temperatures."""
    figure = Figure(figsize=(album.width, album.width * 0.5), layout="constrained")
    axes = figure.subplots()
    below = True  # labels of one line below it, of the next above: they would meet
    for address, runs in rows.items():
        biases, variances = (by_number(runs, name, "tau") for name in ("bias", "variance"))
        if not biases:
            biases, variances = {0.0: figures(runs, "bias")}, {0.0: figures(runs, "variance")}
        x, y = ([_mean(values) for values in found.values()] for found in (variances, biases))
        axes.plot(x, y, label=address, **_style(album.look(address)))
        if len(x) > 1:
            for place in (0, -1):
                text = f"τ = {list(biases)[place]:g}"
                offset = (-12, -10) if below else (4, 4)
                axes.annotate(text, (x[place], y[place]), offset, textcoords="offset points", fontsize=6)
            below = not below
    log_axis(axes.xaxis)
    log_axis(axes.yaxis)
    axes.set(xlabel="relative variance at equal evaluations", ylabel="relative bias")
    _legend(axes)
    return figure


def _line(axes: Axes, address: str, look: Look, x: Sequence[float], mean: np.ndarray, values: np.ndarray) -> None:
    """Draw a method's mean over x with the range of its seeds, ``[seeds, x]``."""
    axes.plot(x, mean, label=address, **_style(look))
    axes.fill_between(x, values.min(0), values.max(0), color=look.colour, alpha=0.15, linewidth=0)


def variance_by_dimension(rows: Mapping[str, Runs], album: Album) -> Figure:
    figure = Figure(figsize=(album.width, album.width * 0.42), layout="constrained")
    axes = figure.subplots()
    for address, runs in rows.items():
        found = by_number(runs, "variance", "dim")
        values = np.stack(list(found.values()), 1)
        _line(axes, address, album.look(address), list(found), np.exp(np.log(values).mean(0)), values)
    log_axis(axes.xaxis)
    log_axis(axes.yaxis)
    axes.set(xlabel="dimensions", ylabel="relative variance at equal evaluations")
    _legend(axes)
    return figure


def training(rows: Mapping[str, Runs], album: Album) -> Figure:
    figure = Figure(figsize=(album.width, album.width * 0.45), layout="constrained")
    axes = figure.subplots()
    for address, runs in rows.items():
        steps, values = bounds(runs)
        _line(axes, address, album.look(address), steps, values.mean(0), values)
    axes.set(xlabel="steps", ylabel="-ELBO at hard draws (nats)")
    _legend(axes)
    return figure
