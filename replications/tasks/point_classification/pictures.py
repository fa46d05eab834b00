"""Pictures of point clouds: parts, densities, maps, reconstructions; accuracy with fewer points; confusions.

Clouds of data sets are shown in the report and never published.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from replications.tasks.base import Album, Picture
from replications.tasks.seed_line import seed_line

COLUMNS = 6
NAME_WIDTH = 1.05  # inches
TURN, TILT = np.radians(35), np.radians(22)  # of the view
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
CONFUSIONS = 4


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the runs have something for."""
    first = {address: (min(runs), runs) for address in album.addresses if (runs := album.runs(address))}
    arrays = {address: album.arrays(address, seed) for address, (seed, _) in first.items()}
    segmented = {a: x for a, x in arrays.items() if "segmented_points" in x and album.role(a) != "ablation"}
    if segmented:
        yield Picture(
            "parts",
            lambda: parts(segmented, album.width),
            "Test clouds coloured by part: the truth, and what each method says.",
            "Test clouds coloured by part (lowest seed), the truth on top. Part mIoU is the mean over all test clouds.",
        )
    density = next((x for a, x in arrays.items() if "density" in x and album.role(a) == "method"), None)
    maps = next((x for a, x in arrays.items() if "map_nodes" in x and album.role(a) == "method"), None)
    if density is not None or maps is not None:
        yield Picture(
            "clouds",
            lambda: densities_and_maps(density, maps, album.width),
            "Test clouds coloured by estimated density, and with the nodes of their self-organising maps.",
            "Test clouds (lowest seed): dark points lie in dense places by the kernel estimate; circles are the nodes "
            "of the self-organising map, lines join neighbours on its grid.",
        )
    drawn = next((x for x in arrays.values() if "reconstructed" in x), None)
    if drawn is not None:
        yield Picture(
            "reconstructions",
            lambda: reconstructions(drawn, album.width),
            "Test clouds above their reconstructions by the autoencoder.",
            "Test clouds (above) and what the autoencoder makes of them (below), before the encoder learns any class.",
        )
    kept = {a: runs for a, (_, runs) in first.items() if any("kept" in r.curves for r in runs.values())}
    kept = {a: runs for a, runs in kept.items() if album.role(a) != "ablation"}
    if kept:
        yield Picture(
            "kept",
            lambda: fewer_points(kept, album),
            "Accuracy against the share of the points that is left.",
            "Accuracy with fewer points, mean over seeds with their range. Points are dropped at random; those that "
            "are left are repeated, so that every method sees as many points as in training, and a map is computed of "
            "them alone.",
            publish=True,
        )
    confused = [a for a in first if album.role(a) != "ablation" and "predicted" in arrays[a]]
    if confused:
        yield Picture(
            "confusions",
            lambda: confusions({a: first[a][1] for a in confused[:CONFUSIONS]}, album),
            "Confusion matrices of the main methods.",
            "Confusions, all seeds together: a row is a true class, its cells share 100 %. Blank cells are 0.",
            publish=True,
        )


def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return screen x, y and depth of points [n, 3] seen from the side and a little from above."""
    x, y, z = np.asarray(points, float).T
    across, along = np.cos(TURN) * x - np.sin(TURN) * y, np.sin(TURN) * x + np.cos(TURN) * y
    return across, np.cos(TILT) * z + np.sin(TILT) * along, along


def _cloud(axes, points: np.ndarray, colour, size: float = 3.0, **keywords) -> None:
    x, y, depth = project(points)
    order = np.argsort(-depth)  # farther points are drawn first
    if not isinstance(colour, str):
        colour = np.asarray(colour)[order]
    axes.scatter(x[order], y[order], s=size, c=colour, linewidths=0, **keywords)


def _panels(width: float, rows: int, columns: int) -> tuple[Figure, list[list]]:
    inches = (width - NAME_WIDTH) / columns
    figure = Figure(figsize=(width, rows * inches + 0.25), layout="none")
    panels = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(NAME_WIDTH / width, 0.0, 1.0, 1 - 0.25 / (rows * inches + 0.25), 0.02, 0.02)
    for axes in panels.flat:
        axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
        axes.axis("off")
    return figure, panels


def _name(axes, text: str) -> None:
    axes.text(-0.06, 0.5, text, transform=axes.transAxes, ha="right", va="center", fontsize=7.5)


def _part_colours(part: np.ndarray, truth: np.ndarray) -> list[str]:
    """A cloud's own parts get the palette in the order of their numbers; parts that are not its own are grey."""
    place = {number: i for i, number in enumerate(np.unique(truth))}
    return [PALETTE[place[p] % len(PALETTE)] if p in place else "#999999" for p in part]


def parts(methods: Mapping[str, Mapping[str, np.ndarray]], width: float) -> Figure:
    """The truth and each method's parts of the same clouds (those of the first method's set)."""
    reference = next(iter(methods.values()))
    shown = {
        address: arrays
        for address, arrays in methods.items()
        if np.array_equal(arrays["segmented_points"], reference["segmented_points"])
    }
    chosen = np.linspace(0, len(reference["segmented_points"]) - 1, COLUMNS).round().astype(int)
    figure, panels = _panels(width, len(shown) + 1, COLUMNS)
    for column, row in enumerate(chosen):
        points, truth = reference["segmented_points"][row], reference["segmented_part"][row]
        _cloud(panels[0][column], points, _part_colours(truth, truth))
        for line, arrays in enumerate(shown.values(), 1):
            _cloud(panels[line][column], points, _part_colours(arrays["segmented_predicted"][row], truth))
    for axes, text in zip(panels[:, 0], ["truth", *(a.replace("/", "/\n") for a in shown)], strict=True):
        _name(axes, text)
    return figure


def densities_and_maps(density: Mapping | None, maps: Mapping | None, width: float, columns: int = 4) -> Figure:
    """Clouds coloured by density; clouds with the nodes of their maps."""
    figure, panels = _panels(width, (density is not None) + (maps is not None), columns)
    line = 0
    if density is not None:
        _name(panels[0][0], "density")
        clouds, densities = density["density_points"][:columns], density["density"][:columns]
        for axes, points, values in zip(panels[0][: len(clouds)], clouds, densities, strict=True):
            rank = values.argsort().argsort() / max(1, len(values) - 1)
            _cloud(axes, points, rank, size=9.0, cmap="viridis_r")
        line = 1
    if maps is not None:
        _name(panels[line][0], "map")
        clouds, nodes_of = maps["map_points"][:columns], maps["map_nodes"][:columns]
        for axes, points, nodes in zip(panels[line][: len(clouds)], clouds, nodes_of, strict=True):
            _cloud(axes, points, "#999999", size=4.0)
            x, y, _ = project(nodes)
            side = round(len(nodes) ** 0.5)
            grid = np.stack([x, y]).reshape(2, side, side)
            for lines in (grid, grid.swapaxes(1, 2)):
                axes.plot(lines[0].T, lines[1].T, color=PALETTE[1], linewidth=0.6, alpha=0.7)
            axes.scatter(x, y, s=14, facecolors="white", edgecolors=PALETTE[1], linewidths=0.9, zorder=3)
    return figure


def reconstructions(arrays: Mapping[str, np.ndarray], width: float) -> Figure:
    """Originals above reconstructions."""
    chosen = np.linspace(0, len(arrays["original"]) - 1, COLUMNS).round().astype(int)
    figure, panels = _panels(width, 2, COLUMNS)
    for column, row in enumerate(chosen):
        _cloud(panels[0][column], arrays["original"][row], PALETTE[0])
        _cloud(panels[1][column], arrays["reconstructed"][row], PALETTE[1])
    _name(panels[0][0], "cloud")
    _name(panels[1][0], "reconstruction")
    return figure


def fewer_points(methods: Mapping[str, Mapping], album: Album) -> Figure:
    """Accuracy against the share of points that is left, by method."""
    figure = Figure(figsize=(album.width * 0.75, album.width * 0.45), layout="constrained")
    axes = figure.subplots()
    shares: set[float] = set()
    for address, runs in methods.items():
        curves = [record.curves["kept"] for record in runs.values() if "kept" in record.curves]
        x, y = np.array(curves[0].x), np.array([curve.y for curve in curves if curve.x == curves[0].x])
        seed_line(axes, album.look(address), address, 100 * x, y, markersize=4)
        shares.update(x.tolist())
    axes.set_xscale("log", base=2)
    ticks = sorted(shares)
    axes.set_xticks([100 * s for s in ticks], [f"{100 * s:g}" for s in ticks])
    axes.minorticks_off()
    axes.set(xlabel="points left (%)", ylabel="accuracy (%)")
    axes.legend(fontsize=7, frameon=False)
    return figure


def confusions(methods: Mapping[str, Mapping], album: Album) -> Figure:
    """Row-normalised confusion matrices, two in a row."""
    addresses = list(methods)
    lines = -(-len(addresses) // 2)
    figure = Figure(figsize=(album.width, lines * album.width * 0.52), layout="constrained")
    panels = figure.subplots(lines, 2, squeeze=False)
    for axes in panels.flat[len(addresses) :]:
        axes.axis("off")
    for axes, address in zip(panels.flat[: len(addresses)], addresses, strict=True):
        runs = methods[address]
        names: Sequence[str] = next(iter(runs.values())).extra["classes"]
        table = np.zeros((len(names), len(names)))
        for seed in runs:
            found = album.arrays(address, seed)
            if not found:
                continue
            own = ~found["copy"]
            np.add.at(table, (found["label"][own], found["predicted"][own]), 1)
        share = 100 * table / np.maximum(table.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for row, column in zip(*np.nonzero(share.round() >= 1), strict=True):
            value = share[row, column]
            colour = "white" if value > 55 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=5, color=colour)
        size = 6 if len(names) <= 16 else 4
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        axes.tick_params(length=0)
        axes.grid(False)
        axes.set_title(address, fontsize=8)
    return figure
