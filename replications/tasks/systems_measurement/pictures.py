"""Pictures of systems and identities: time by algorithm, effective fields by depth, an average on its trajectory."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from replications.records import RunRecord
from replications.tasks.base import Album, Picture
from replications.tasks.log_axis import log_axis

LINES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"))


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records, or the arrays beside them, give something for."""
    runs = {address: found for address in album.addresses if (found := album.runs(address))}
    timed = {address: found for address, of in runs.items() if (found := list(of.values())) and times(found)}
    if timed:
        yield Picture(
            "time",
            lambda: time_figure(timed, album.width),
            "Time against size on log axes, one panel per method and one line for each way to compute the same.",
            "What size costs, on log axes: mean over seeds with their range. A panel is a row, its lines were measured "
            "in turn in the same process.",
            publish=True,
        )
    arrays = {address: album.arrays(address, min(of)) for address, of in runs.items()}
    fields = {a: maps for a, found in arrays.items() if (maps := maps_by_depth(found))}
    if fields:
        yield Picture(
            "effective_fields",
            lambda: field_figure(fields, album.width),
            "Heat maps of how much each pixel of a unit's theoretical square moves it, one row of maps per method.",
            "Effective receptive fields by depth (lowest seed). Each map is the theoretical square with a margin of "
            "two pixels, however large that is, and is drawn relative to its largest value; the ring is two standard "
            "deviations. The deeper the network, the smaller the share of the square that matters.",
            publish=True,
        )
    paths = {a: found for a, found in arrays.items() if "path" in found and "average" in found}
    if paths:
        yield Picture(
            "averages",
            lambda: path_figure(paths, album.width),
            "Iterates of two coordinates around the optimum, and their moving average.",
            "The last iterates (lowest seed) in the two flattest directions of a quadratic, and their moving average. "
            "The cross is the optimum.",
            publish=True,
        )


def times(records: Sequence[RunRecord]) -> dict[str, tuple[list[float], np.ndarray]]:
    """Return sizes and milliseconds ``[seeds, sizes]`` by what was timed, of the seeds that have equal sizes."""
    found: dict[str, tuple[list[float], np.ndarray]] = {}
    for name in sorted({name for record in records for name in record.curves if name.startswith("time_")}):
        curves = [record.curves[name] for record in records if name in record.curves]
        rows = [curve.y for curve in curves if curve.x == curves[0].x]
        found[name.removeprefix("time_").replace("_", " ")] = (curves[0].x, np.array(rows))
    return found


def time_figure(timed: Mapping[str, Sequence[RunRecord]], width: float) -> Figure:
    """Draw a panel for each row with times."""
    figure = Figure(figsize=(width, 0.5 * width), layout="constrained")
    for axes, (address, records) in zip(figure.subplots(1, len(timed), squeeze=False)[0], timed.items(), strict=True):
        for number, (name, (x, rows)) in enumerate(times(records).items()):
            colour, marker = LINES[number % len(LINES)]
            axes.plot(x, rows.mean(0), color=colour, marker=marker, markersize=4, linewidth=1.2, label=name)
            axes.fill_between(x, rows.min(0), rows.max(0), color=colour, alpha=0.15, linewidth=0)
        label = next(c.x_label for record in records for n, c in record.curves.items() if n.startswith("time_"))
        log_axis(axes.xaxis)
        log_axis(axes.yaxis)
        axes.set(title=address, xlabel=label, ylabel="ms")
        axes.legend(fontsize=7, frameon=False)
    return figure


def maps_by_depth(arrays: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Return the maps ``[side, side]`` that a run kept, by depth in rising order."""
    depths = sorted(int(name.removeprefix("map_")) for name in arrays if name.startswith("map_"))
    return {depth: arrays[f"map_{depth}"] for depth in depths}


def field_figure(fields: Mapping[str, Mapping[int, np.ndarray]], width: float) -> Figure:
    """Draw the maps, one row per method and one column per depth."""
    depths = sorted({depth for maps in fields.values() for depth in maps})
    figure = Figure(figsize=(width, width / (len(depths) + 1) * len(fields)), layout="constrained")
    panels = figure.subplots(len(fields), len(depths), squeeze=False)
    for line, (address, maps) in zip(panels, fields.items(), strict=True):
        for axes, depth in zip(line, depths, strict=True):
            axes.set(xticks=[], yticks=[])
            if depth not in maps:
                axes.axis("off")
                continue
            values = np.asarray(maps[depth], float)
            axes.imshow(values / values.max(), cmap="magma", vmin=0, vmax=1)
            places = np.arange(len(values))
            total, across = values.sum(), values.sum(0)
            mean = (across * places).sum() / total
            spread = ((across * (places - mean) ** 2).sum() / total) ** 0.5
            turn = np.linspace(0, 2 * np.pi, 100)
            axes.plot(mean + 2 * spread * np.cos(turn), mean + 2 * spread * np.sin(turn), color="white", linewidth=0.8)
            axes.set_title(f"{depth} layers, {len(values)} px", fontsize=7)
        line[0].set_ylabel(address.replace("/", "/\n"), fontsize=7)
        line[0].axis("on")
    return figure


def path_figure(paths: Mapping[str, Mapping[str, np.ndarray]], width: float) -> Figure:
    """Draw each method's iterates and averages ``[points, 2]`` on equal axes."""
    figure = Figure(figsize=(width, 1.1 * width / len(paths)), layout="constrained")
    panels = figure.subplots(1, len(paths), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (address, arrays) in zip(panels, paths.items(), strict=True):
        axes.plot(*arrays["path"].T, color="#56B4E9", linewidth=0.4, label="iterates")
        axes.plot(*arrays["average"].T, color="#D55E00", linewidth=1.4, label="average")
        axes.plot(0, 0, "x", color="black", markersize=7, zorder=3)
        axes.set_title(address, fontsize=7)
        axes.set_aspect("equal", adjustable="box")
    panels[0].legend(fontsize=7, frameon=False)
    return figure
