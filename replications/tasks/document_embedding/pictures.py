"""Pictures of embedded documents: their map, k-NN accuracy over steps, and scores of each row."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from replications.records import RunRecord
from replications.tasks.base import Album, Picture

PLANES = {"plane_average": "averages", "plane_document": "documents"}
SCORES = {"accuracy": "logistic regression", "knn": "k-NN", "purity": "purity of clusters"}


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records give something for."""
    runs = {address: found for address in album.addresses if (found := album.runs(address))}
    maps = {}
    for address, found in runs.items():
        arrays = album.arrays(address, min(found)) if album.role(address) != "ablation" else {}
        for plane, title in PLANES.items():
            same = plane == "plane_document" and np.array_equal(arrays.get("plane_average", ()), arrays.get(plane))
            if plane in arrays and not same:
                maps[f"{address}\n{title}"] = arrays["label"][: len(arrays[plane])], arrays[plane]
    if maps:
        yield Picture(
            "map",
            lambda: map_figure(maps, album.width),
            "Documents as points in the plane, one panel per method and kind of vector, coloured by class.",
            "Documents of the first seed in the plane of the two first principal components of their unit vectors: "
            "averages of words and, where the method trains them, vectors of documents; without ablations. Colours are "
            "the labels, which no method sees while it trains, in their order round the colour circle: neighbouring "
            "topics of tier mini share words.",
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


def map_figure(maps: Mapping[str, tuple[np.ndarray, np.ndarray]], width: float) -> Figure:
    """Draw a panel of labelled points, ``[n]`` and ``[n, 2]``, for each entry."""
    columns = min(len(maps), 4)
    lines = -(-len(maps) // columns)
    figure = Figure(figsize=(width, (width / columns + 0.15) * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(maps) :]:
        axes.axis("off")
    for axes, (title, (label, plane)) in zip(panels[: len(maps)], maps.items(), strict=True):
        colours = colormaps["hsv"](label / (label.max() + 1)) * [0.88, 0.88, 0.88, 1]
        axes.scatter(*plane.T, s=7, c=colours, linewidths=0, alpha=0.85, rasterized=True)
        reach = 1.05 * max(float(np.quantile(np.abs(plane), 0.99)), 1e-9)
        axes.set(xticks=[], yticks=[], xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.grid(False)
        axes.set_title(title, fontsize=6)
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
