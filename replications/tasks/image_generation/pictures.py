"""Pictures of image generation: images of shared noise, the way from noise to image, distance over sampling steps."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from replications.tasks.base import Album, Picture
from replications.tasks.image_sheet import image_sheet
from replications.tasks.log_axis import log_axis

COLUMNS = 16
LINES = 2
FEW = re.compile(r"frechet_(\w+)_(\d+)")


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records give something for."""
    first = {a: min(runs) for a in album.addresses if (runs := album.runs(a))}
    arrays = {address: album.arrays(address, seed) for address, seed in first.items()}
    shapes = {address: album.runs(address)[seed].extra["shape"] for address, seed in first.items()}
    shown = {address: found["shown"] for address, found in arrays.items() if "shown" in found}
    if shown:
        yield Picture(
            "shown",
            lambda: shown_figure(shown, shapes, album.width),
            "Images of each method, two lines per method.",
            "Images by averaged weights, first seed, not chosen. Methods whose noise has equally many numbers have the "
            "same noise in a column. All are drawn by the models; none is of the data.",
            publish=True,
        )
    strips = {address: found["strip"][:, :5] for address, found in arrays.items() if "strip" in found}
    if strips:
        yield Picture(
            "strip",
            lambda: strip_figure(strips, shapes, album.width),
            "From noise, on the left, to images, on the right; a panel per method.",
            "Ancestral sampling of the first seed: noise, states at even distances of the chain, images.",
            publish=True,
        )
    lines = {address: found for address in first if (found := steps_of(album, address))}
    if lines:
        yield Picture(
            "steps",
            lambda: steps_figure(lines, album),
            "Fréchet distance against the number of sampling steps, a line per method and sampler.",
            "Fréchet distance, means over seeds. Filled marks: without noise (eta 0); open marks: with it (eta 1).",
            publish=True,
        )


def shown_figure(shown: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]], width: float) -> Figure:
    figure = Figure(figsize=(width, 0.062 * LINES * width * len(shown) + 0.2), layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, (address, images) in zip(panels, shown.items(), strict=True):
        columns = min(COLUMNS, len(images))
        lines = min(LINES, len(images) // columns)
        image_sheet(axes, images[: lines * columns].reshape(lines, columns, *shapes[address]), 255)
        axes.set_ylabel(address.replace("/", "/\n"), rotation=0, ha="right", va="center", fontsize=6)
    return figure


def strip_figure(strips: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]], width: float) -> Figure:
    figure = Figure(figsize=(width, 0.9 * width / len(strips) + 0.4), layout="constrained")
    panels = figure.subplots(1, len(strips), squeeze=False)[0]
    for axes, (address, states) in zip(panels, strips.items(), strict=True):
        image_sheet(axes, states.transpose(1, 0, 2).reshape(states.shape[1], len(states), *shapes[address]), 255)
        axes.set_title(address, fontsize=7)
    return figure


def steps_of(album: Album, address: str) -> dict[str, list[tuple[int, float]]]:
    """Return by sampler the mean distance at each number of steps, rising; empty where a method has one sampler."""
    found: dict[str, list[tuple[int, float]]] = {}
    records = list(album.runs(address).values())
    for name in records[0].metrics:
        if match := FEW.fullmatch(name):
            values = [record.metrics[name] for record in records if name in record.metrics]
            found.setdefault(match[1], []).append((int(match[2]), float(np.mean(values))))
    return {sampler: sorted(points) for sampler, points in found.items()}


def steps_figure(lines: Mapping[str, Mapping[str, list[tuple[int, float]]]], album: Album) -> Figure:
    figure = Figure(figsize=(0.75 * album.width, 0.5 * album.width), layout="constrained")
    axes = figure.subplots()
    for address, samplers in lines.items():
        look = album.look(address)
        for sampler, points in samplers.items():
            axes.plot(
                *zip(*points, strict=True),
                color=look.colour,
                marker=look.marker,
                markerfacecolor=look.colour if sampler == "eta0" else "none",
                linestyle=look.dash,
                label=f"{address}, {sampler}",
            )
    axes.set(xlabel="sampling steps", ylabel="Fréchet distance of features")
    log_axis(axes.xaxis)
    log_axis(axes.yaxis)
    axes.legend(fontsize=6, frameon=False)
    return figure
