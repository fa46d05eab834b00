"""Pictures of image generation: images of shared noise, ways between them, rebuilt images, codes, and distances."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from replications.tasks.base import Album, Picture
from replications.tasks.image_sheet import image_sheet
from replications.tasks.log_axis import log_axis

COLUMNS = 16
LINES = 2
LARGEST_BOOK = 128
FEW = re.compile(r"frechet_(\w+)_(\d+)")


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records give something for."""
    first = {a: min(runs) for a in album.addresses if (runs := album.runs(a))}
    arrays = {address: album.arrays(address, seed) for address, seed in first.items()}
    shapes = {address: album.runs(address)[seed].extra["shape"] for address, seed in first.items()}

    def of(name: str) -> dict[str, np.ndarray]:
        return {address: found[name] for address, found in arrays.items() if name in found}

    shown = of("shown")
    if shown:
        yield Picture(
            "shown",
            lambda: shown_figure(shown, shapes, album.width),
            "Images of each method, two lines per method.",
            "Images by averaged weights, first seed, not chosen. Methods whose noise has equally many numbers have the "
            "same noise in a column. All are drawn by the models; none is of the data.",
            publish=True,
        )
    strips = {address: states[:, :5] for address, states in of("strip").items()}
    if strips:
        yield Picture(
            "strip",
            lambda: strip_figure(strips, shapes, album.width),
            "From noise, on the left, to images, on the right; a panel per method.",
            "Ancestral sampling of the first seed: noise, states at even distances of the chain, images.",
            publish=True,
        )
    between = of("between")
    if between:
        yield Picture(
            "between",
            lambda: lines_figure(between, shapes, album.width),
            "Images of noise that turns from one draw to another, left to right, two ways per method.",
            "Both ends are normal noise that all methods share, and the way between them a great circle. Diffusion is "
            "sampled without noise (eta 0). All images are drawn by the models.",
            publish=True,
        )
    pairs = {address: images[:, :COLUMNS] for address, images in of("pairs").items()}
    if pairs:
        keys = {key for address in pairs for key in album.runs(address)[first[address]].spec.data.values()}
        yield Picture(
            "pairs",
            lambda: lines_figure(pairs, shapes, album.width),
            "Test images above, and the same made of their codes below; two lines per method.",
            "The first test images, and what each method makes of their codes or latents.",
            publish=all(album.kind(key) == "embedded" for key in keys),
        )
    codes = {address: images[:LARGEST_BOOK] for address, images in of("codes").items()}
    if codes:
        yield Picture(
            "codes",
            lambda: codes_figure(codes, shapes, album.width),
            "What each discrete code stands for: the image that has it at every place; a panel per method.",
            f"Codes in their order in the codebook, at most the first {LARGEST_BOOK}. Images are made by the decoder.",
            publish=True,
        )
    made = {
        address: found
        for address, found in arrays.items()
        if "pair_share" in album.runs(address)[first[address]].metrics
    }
    if made:
        yield Picture(
            "spectra",
            lambda: spectra_figure(made, shapes, album),
            "Energy of images by frequency across columns, a line per method and one for test images.",
            "A checkerboard is energy at the right end, where a pattern repeats every two pixels. Means over the first "
            "seed's samples and over rows; each image's mean is taken out.",
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
    sheets = {}
    for address, images in shown.items():
        columns = min(COLUMNS, len(images))
        lines = min(LINES, len(images) // columns)
        sheets[address] = images[: lines * columns].reshape(lines, columns, -1)
    return lines_figure(sheets, shapes, width)


def lines_figure(lines: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]], width: float) -> Figure:
    """Draw a panel per method of its images ``[lines, columns, pixels]``."""
    heights = [len(found) for found in lines.values()]
    figure = Figure(figsize=(width, 0.062 * width * sum(heights) + 0.2), layout="constrained")
    panels = figure.subplots(len(lines), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (address, images) in zip(panels, lines.items(), strict=True):
        image_sheet(axes, images.reshape(*images.shape[:2], *shapes[address]), 255)
        axes.set_ylabel(address.replace("/", "/\n"), rotation=0, ha="right", va="center", fontsize=6)
    return figure


def codes_figure(codes: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]], width: float) -> Figure:
    sheets = {}
    for address, images in codes.items():
        filled = np.zeros((-(-len(images) // COLUMNS) * COLUMNS, images.shape[1]), np.uint8)
        filled[: len(images)] = images
        sheets[address] = filled.reshape(-1, COLUMNS, images.shape[1])
    return lines_figure(sheets, shapes, width)


def spectra_figure(
    made: Mapping[str, Mapping[str, np.ndarray]], shapes: Mapping[str, Sequence[int]], album: Album
) -> Figure:
    figure = Figure(figsize=(0.75 * album.width, 0.5 * album.width), layout="constrained")
    axes = figure.subplots()
    for address, found in made.items():
        look = album.look(address)
        energy = spectrum(found["samples"].reshape(-1, *shapes[address]))
        axes.plot(
            np.arange(len(energy)), energy, color=look.colour, marker=look.marker, linestyle=look.dash, label=address
        )
    address, found = next(iter(made.items()))
    energy = spectrum(found["reference"].reshape(-1, *shapes[address]))
    axes.plot(np.arange(len(energy)), energy, color="black", linestyle="--", label="test images")
    axes.set(xlabel="periods across the columns", ylabel="energy", yscale="log")
    axes.legend(fontsize=6, frameon=False)
    return figure


def spectrum(images: np.ndarray) -> np.ndarray:
    """Return the mean energy ``[columns / 2 + 1]`` by frequency across columns of images ``[n, rows, columns]``."""
    centred = images / 127.5 - images.mean((1, 2), keepdims=True) / 127.5
    return np.square(np.abs(np.fft.rfft(centred, axis=2))).mean((0, 1))


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
