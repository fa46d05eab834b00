"""Figures without images: AP against epochs and decoder layers, and where queries put their boxes."""

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.figure import Figure

from replications.records import RunRecord
from replications.tasks.base import Album, Picture
from replications.tasks.seed_line import seed_line


def curves(album: Album) -> Iterator[Picture]:
    main = [address for address in album.addresses if album.role(address) != "ablation"]
    curves = {
        a: [r.curves["ap_over_epochs"] for r in album.runs(a).values() if "ap_over_epochs" in r.curves] for a in main
    }
    tests = {a: next(iter(album.runs(a).values())).spec.data["test"] for a in main if curves[a]}
    curves = {a: own for a, own in curves.items() if own and tests[a] == next(iter(tests.values()))}
    if curves:
        series = {}
        for address, own in curves.items():
            x = np.array(own[0].x)
            series[address] = x, np.array([np.interp(x, curve.x, curve.y) for curve in own])
        means = {address: (x, ys.mean(0)) for address, (x, ys) in series.items()}
        yield Picture(
            "convergence",
            lambda: convergence(album, series),
            "Validation AP against epochs of the main methods.",
            f"Validation AP against epochs, mean and range over seeds. {crossings(means)}",
            publish=True,
        )
    layered = {
        a: list(album.runs(a).values()) for a in main if any("ap_of_layers" in r.curves for r in album.runs(a).values())
    }
    if layered:
        yield Picture(
            "decoder_layers",
            lambda: decoder_layers(album, layered),
            "AP of each decoder layer's predictions, with and without non-maximum suppression.",
            "AP of each decoder layer's predictions, with and without non-maximum suppression; mean and range over "
            "seeds (DETR, Figure 4).",
            publish=True,
        )


def convergence(album: Album, series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """AP ``[seeds, epochs]`` against epochs ``[epochs]`` by address."""
    figure = Figure(figsize=(album.width, 3.4), layout="constrained")
    axes = figure.subplots()
    for address, (x, ys) in series.items():
        seed_line(axes, album.look(address), address, x, ys, markersize=4)
    axes.set(xlabel="epoch", ylabel="AP of the validation images (%)", ylim=(0, None), xlim=(0, None))
    axes.legend(loc="upper left", fontsize=8)
    return figure


def decoder_layers(album: Album, layered: Mapping[str, list[RunRecord]]) -> Figure:
    """AP of each decoder layer's predictions, one panel per method."""
    figure = Figure(figsize=(album.width, 3.0), layout="constrained")
    grid = figure.subplots(1, len(layered), sharey=True, squeeze=False)[0]
    for axes, (address, records) in zip(grid, layered.items(), strict=True):
        colour = album.look(address).colour
        for name, label, dash in (
            ("ap_of_layers", "as predicted", "-"),
            ("ap_of_layers_with_nms", "with NMS", ":"),
        ):
            own = [record.curves[name] for record in records if name in record.curves]
            ys = np.array([curve.y for curve in own])
            axes.plot(own[0].x, ys.mean(0), color=colour, linestyle=dash, marker="o", markersize=4, label=label)
            axes.fill_between(own[0].x, ys.min(0), ys.max(0), color=colour, alpha=0.12, linewidth=0)
        axes.set(title=address, xlabel="decoder layer", xticks=own[0].x)
        axes.legend(loc="lower right", fontsize=8)
    grid[0].set_ylim(bottom=0)
    grid[0].set_ylabel("AP of the test images (%)")
    return figure


def crossings(means: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Say in words where mean curves (epochs, AP) of each two methods cross for good."""
    sentences = []
    addresses = list(means)
    for index, one in enumerate(addresses):
        for other in addresses[index + 1 :]:
            end = min(means[one][0][-1], means[other][0][-1])
            grid = np.linspace(0, end, 400)
            gap = np.interp(grid, *means[one]) - np.interp(grid, *means[other])
            turns = np.flatnonzero(np.sign(gap[1:]) * np.sign(gap[-1]) < 0)
            ahead = one if gap[-1] > 0 else other
            behind = other if ahead == one else one
            if len(turns) and grid[turns[-1] + 1] > 0.02 * end:
                sentences.append(f"{ahead} overtakes {behind} at epoch {grid[turns[-1] + 1]:.1f}.")
            else:
                sentences.append(f"{ahead} is ahead of {behind} as long as both were trained.")
    return " ".join(sentences)


QUERY_IMAGES = 300  # as many images have a mark in each panel of `query_boxes`


def query_boxes(boxes: np.ndarray, width: float, most: int = 20) -> Figure:
    """A panel per query: the centres of its boxes ``[images, queries, 4]`` (``xyxy``, fractions).

    Of many images, evenly spaced ones are drawn.
    """
    boxes = boxes[:: -(-len(boxes) // QUERY_IMAGES)]
    count = min(boxes.shape[1], most)
    columns = min(count, 8 if count % 8 == 0 or count > 10 else 5)
    lines = -(-count // columns)
    figure = Figure(figsize=(width, lines * width / columns * 1.12 + 0.15), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    size = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., 2:] + boxes[..., :2]) / 2
    median = np.median(size.prod(-1))
    colour = np.where(size.prod(-1) <= median, "#2ca25f", np.where(size[..., 0] >= size[..., 1], "#de2d26", "#3182bd"))
    for query, axes in enumerate(grid):
        if query >= count:
            axes.axis("off")
            continue
        axes.scatter(*centre[:, query].T, s=4, c=colour[:, query], alpha=0.6, linewidths=0)
        axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")
        axes.set_title(f"query {query}", fontsize=7, pad=2)
    return figure
