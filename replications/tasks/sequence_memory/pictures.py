"""Pictures of memory: recall by number of pairs and gap, and the gradient's path over distance."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from replications.records import RunRecord
from replications.tasks.base import Album, Picture
from replications.tasks.seed_line import seed_line

HEIGHT = 2.9  # inches
CONDITION = re.compile(r"recall_p(\d+)_g(\d+)")


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records give something for."""
    runs = {address: found for address in album.addresses if (found := list(album.runs(address).values()))}
    trained = {address: found for address, found in runs.items() if "recall" in found[0].metrics}
    if trained:
        yield Picture(
            "recall",
            lambda: recall_figure(trained, album),
            "Recall of each method against the gap, one panel per number of pairs.",
            "Values recalled correctly against the filler tokens between pairs and question, means over seeds with "
            "their range. Dashed: a guess among the values seen; dotted: a guess among all values.",
            publish=True,
        )
    pathed = {address: found for address, found in runs.items() if "path" in found[0].curves}
    if pathed:
        yield Picture(
            "path",
            lambda: path_figure(pathed, album),
            "Logarithm of the gradient's norm against the distance, one line per method.",
            "How much of the gradient of a layer's last output is left at its input some positions earlier, before any "
            "training: log10 of |dy_T/dx_t|, mean over seeds.",
            publish=True,
        )


def recall_figure(trained: Mapping[str, Sequence[RunRecord]], album: Album) -> Figure:
    """Draw recall against the gap in a panel for each number of pairs."""
    conditions = sorted(tuple(map(int, m.groups())) for name in _metrics(trained) if (m := CONDITION.fullmatch(name)))
    numbers, gaps = (sorted({condition[i] for condition in conditions}) for i in (0, 1))
    figure = Figure(figsize=(album.width, HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
    values = next(iter(trained.values()))[0].spec.task_options["recall"].get("values", 8)
    for axes, pairs in zip(panels, numbers, strict=True):
        for address, records in trained.items():
            names = [f"recall_p{pairs}_g{gap}" for gap in gaps]
            recall = np.array([[record.metrics[name] for name in names] for record in records])
            seed_line(axes, album.look(address), address, gaps, recall)
        axes.axhline(100 / pairs + (100 - 100 / pairs) / values, color="#7F7F7F", linestyle="--", linewidth=0.8)
        axes.axhline(100 / values, color="#7F7F7F", linestyle=":", linewidth=0.8)
        axes.set(title=f"{pairs} pair{'s' * (pairs > 1)}", xlabel="gap, tokens", ylim=(0, 103))
        axes.set_xticks(gaps)
    panels[0].set_ylabel("values recalled, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def path_figure(pathed: Mapping[str, Sequence[RunRecord]], album: Album) -> Figure:
    """Draw the path of each method over distance."""
    figure = Figure(figsize=(album.width, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for address, records in pathed.items():
        look, distance = album.look(address), records[0].curves["path"].x
        path = np.mean([record.curves["path"].y for record in records], axis=0)
        every = max(1, len(distance) // 8)
        axes.plot(
            distance, path, color=look.colour, marker=look.marker, markevery=every, linestyle=look.dash, label=address
        )
    axes.set(xlabel="distance, positions", ylabel="log10 of the gradient's norm")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _metrics(trained: Mapping[str, Sequence[RunRecord]]) -> set[str]:
    """Return the metrics that every record has."""
    return set.intersection(*(set(record.metrics) for records in trained.values() for record in records))
