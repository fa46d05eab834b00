"""Pictures of embedded documents: their map, k-NN accuracy over steps, and scores of each row."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from replications.records import RunRecord
from replications.tasks.base import Album, Picture

COLOURS = 20  # of the map; classes beyond share them
MARKERS = "os^vD"
SCORES = {"accuracy": "logistic regression", "knn": "k-NN", "purity": "purity of clusters"}


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records give something for."""
    runs = {address: found for address in album.addresses if (found := album.runs(address))}
    maps = {}
    for address, found in runs.items():
        arrays = album.arrays(address, min(found))
        if "plane_document" in arrays:
            maps[address] = arrays
    if maps:
        yield Picture(
            "map",
            lambda: map_figure(maps, album.width),
            "Documents as points in the plane, one panel per method, coloured by class.",
            "Documents of the first seed in the plane of the two first principal components of their unit vectors, "
            "coloured by class. A document is shown by its own vector where the method trains one, else by the average "
            "of its words. Colours are the labels, which no method sees while it trains.",
            publish=True,
        )
    if runs:
        yield Picture(
            "scores",
            lambda: scores_figure(runs, album),
            "Scores of each method with averages of words and with vectors of documents.",
            "Means over seeds, with each seed as a dot: filled bars are the method's vectors of documents, empty ones "
            "averages of its words' vectors.",
            publish=True,
        )
    steps = {address: over_steps(list(found.values())) for address, found in runs.items()}
    if steps := {address: curve for address, curve in steps.items() if len(curve) > 1}:
        yield Picture(
            "steps",
            lambda: steps_figure(steps, album),
            "k-NN accuracy on validation documents against training steps, one line per method.",
            "k-NN accuracy of averages of words on validation documents as training goes on, means over seeds.",
            publish=True,
        )


def map_figure(maps: Mapping[str, Mapping[str, Any]], width: float) -> Figure:
    """Draw a panel of points for each method."""
    columns = min(len(maps), 4)
    lines = -(-len(maps) // columns)
    figure = Figure(figsize=(width, (width / columns + 0.15) * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(maps) :]:
        axes.axis("off")
    for axes, (address, arrays) in zip(panels[: len(maps)], maps.items(), strict=True):
        plane = arrays["plane_document"]
        for kind, label in enumerate(np.unique(arrays["label"])):
            own = plane[arrays["label"][: len(plane)] == label]
            marker = MARKERS[kind // COLOURS % len(MARKERS)]
            colour = _colour(kind)
            axes.scatter(*own.T, s=3, color=colour, marker=marker, linewidths=0, alpha=0.8, rasterized=True)
        reach = 1.1 * max(float(np.abs(plane).max()), 1e-9)
        axes.set(xticks=[], yticks=[], xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.grid(False)
        axes.set_title(address, fontsize=7)
    return figure


def scores_figure(runs: Mapping[str, Mapping[int, RunRecord]], album: Album) -> Figure:
    """Draw bars of each score, methods from top to bottom."""
    figure = Figure(figsize=(album.width, 0.6 + 0.34 * len(runs)), layout="constrained")
    panels = figure.subplots(1, len(SCORES), sharey=True)
    for axes, (score, title) in zip(panels, SCORES.items(), strict=True):
        for line, (address, found) in enumerate(runs.items()):
            look = album.look(address)
            for shift, prefix, filled in ((-0.2, "", True), (0.2, "average_", False)):
                values = [r.metrics[prefix + score] for r in found.values() if prefix + score in r.metrics]
                if values:
                    face = look.colour if filled else "none"
                    axes.barh(line + shift, np.mean(values), 0.36, color=face, edgecolor=look.colour)
                    axes.plot(values, [line + shift] * len(values), ".", color="0.2", markersize=2.5)
        axes.set(title=title, xlabel="%", xlim=(0, 100))
    panels[0].set_yticks(range(len(runs)), list(runs))
    panels[0].invert_yaxis()
    return figure


def steps_figure(steps: Mapping[str, Mapping[int, float]], album: Album) -> Figure:
    """Draw a line for each method."""
    figure = Figure(figsize=(album.width, 0.42 * album.width), layout="constrained")
    axes = figure.subplots()
    for address, curve in steps.items():
        look = album.look(address)
        axes.plot(
            list(curve), list(curve.values()), color=look.colour, marker=look.marker, markersize=3,
            linestyle=look.dash, label=address,
        )  # fmt: skip
    axes.set(xlabel="steps", ylabel="k-NN, %")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def over_steps(records: Sequence[RunRecord]) -> dict[int, float]:
    """Return the mean over runs of the averages' validation accuracy, by step."""
    found: dict[int, list[float]] = {}
    for record in records:
        for point in record.history:
            if point.split == "validation" and "knn_average" in point.values:
                found.setdefault(point.step, []).append(point.values["knn_average"])
    return {step: float(np.mean(values)) for step, values in sorted(found.items())}


def _colour(kind: int) -> tuple[float, float, float, float]:
    from matplotlib import colormaps

    return colormaps["tab20"](kind % COLOURS)
