"""Pictures of density estimation: samples, bounds by samples, the latent plane, the masks of a network."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from replications.tasks.base import Album, Picture
from replications.tasks.density_estimation.rescore import BOUNDS
from replications.tasks.image_sheet import image_sheet

COLUMNS = 16


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records give something for."""
    first = {a: min(runs) for a in album.addresses if (runs := album.runs(a))}
    arrays = {address: album.arrays(address, seed) for address, seed in first.items()}
    shapes = {address: album.runs(address)[seed].extra["shape"] for address, seed in first.items()}
    sampled = {address: found["sample"] for address, found in arrays.items() if "sample" in found}
    if sampled:
        yield Picture(
            "samples",
            lambda: samples_figure(sampled, shapes, album.width),
            "Samples, one row per method.",
            "Samples of the first seed, not chosen. All are drawn by the models; none is of the data.",
            publish=True,
        )
    bounded = {address: runs for address in first if (runs := _bounds(album, address)) is not None}
    if bounded:
        yield Picture(
            "bounds",
            lambda: bounds_figure(bounded, album),
            "Bounds of log p(x) against the number of samples, one line per method, and log p(x) where it is known.",
            "Importance-weighted bounds of the test images' mean log p(x), means over seeds; one sample is the ELBO. "
            "Dotted: log p(x) by a grid over two latents.",
            publish=True,
        )
    for address, found in arrays.items():
        if "plane" in found:
            yield Picture(
                "plane",
                lambda address=address, found=found: plane_figure(found, shapes[address], album.width),
                "Left: test images in the plane of two latents, coloured by class. Right: what the decoder makes of a "
                "grid of the plane.",
                f"{address}, first seed. Left: the posterior mean of each test image. Right: the decoder's mean "
                "pixels, from -2.5 to 2.5 on both axes.",
                publish=True,
            )
            break
    masked = {address: masks for address, found in arrays.items() if (masks := _masks(found))}
    if masked:
        yield Picture(
            "masks",
            lambda: masks_figure(masked, album.width),
            "Masks of the first order's layers and their product, one row per method.",
            "Weights that MADE keeps (dark): inputs from left to right, outputs downwards, hidden units sorted by "
            "their number of inputs. On the right, how many paths (fourth root) lead from each "
            "input to each output: none to an output from itself or from what comes after it.",
            publish=True,
        )


def samples_figure(sampled: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int]], width: float) -> Figure:
    figure = Figure(figsize=(width, 0.062 * width * len(sampled) + 0.2), layout="constrained")
    panels = figure.subplots(len(sampled), 1, squeeze=False)[:, 0]
    for axes, (address, images) in zip(panels, sampled.items(), strict=True):
        image_sheet(axes, images[:COLUMNS].reshape(1, -1, *shapes[address]), 1)
        axes.set_ylabel(address.replace("/", "/\n"), rotation=0, ha="right", va="center", fontsize=6)
    return figure


def _bounds(album: Album, address: str) -> np.ndarray | None:
    """Return the mean bounds of a method, and log p(x) or NaN behind them; None where it has no bounds."""
    found = [record.metrics for record in album.runs(address).values() if "bound_5" in record.metrics]
    if not found:
        return None
    names = (*BOUNDS, "grid_log_prob")
    return np.array([[metrics.get(name, np.nan) for name in names] for metrics in found]).mean(0)


def bounds_figure(bounded: Mapping[str, np.ndarray], album: Album) -> Figure:
    figure = Figure(figsize=(0.75 * album.width, 0.5 * album.width), layout="constrained")
    axes = figure.subplots()
    for address, values in bounded.items():
        look = album.look(address)
        axes.plot(
            list(BOUNDS.values()),
            values[:-1],
            color=look.colour,
            marker=look.marker,
            linestyle=look.dash,
            label=address,
        )
        if np.isfinite(values[-1]):
            axes.axhline(values[-1], color=look.colour, linestyle=":", linewidth=1, label=f"log p(x), {address}")
    axes.set(xscale="log", xlabel="samples", ylabel="bound of log p(x), nats an image")
    axes.set_xticks(list(BOUNDS.values()), list(map(str, BOUNDS.values())))
    axes.minorticks_off()
    axes.legend(fontsize=7, frameon=False)
    return figure


def plane_figure(found: Mapping[str, np.ndarray], shape: Sequence[int], width: float) -> Figure:
    figure = Figure(figsize=(width, 0.5 * width), layout="constrained")
    scatter, sheet = figure.subplots(1, 2)
    mean, label = found["latent_mean"], found.get("label")
    drawn = scatter.scatter(mean[:, 0], mean[:, 1], c=label, cmap="tab10" if label is not None else None, s=8)
    if label is not None:
        above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 5, "frameon": False}
        scatter.legend(*drawn.legend_elements(num=None), fontsize=6, title="class", title_fontsize=6, **above)
    scatter.set(xlabel="first latent", ylabel="second latent", aspect="equal")
    side = round(len(found["plane"]) ** 0.5)
    # The grid's first axis is the first latent: it runs to the right, the second upwards.
    images = found["plane"].reshape(side, side, *shape).transpose(1, 0, 2, 3)[::-1]
    image_sheet(sheet, images, 1)
    sheet.set(xlabel="first latent", ylabel="second latent")
    return figure


def _masks(found: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return the masks, lowest layer first, with hidden units sorted by their number of inputs."""
    masks = [found[name] for name in sorted(name for name in found if name.startswith("mask_"))]
    for layer in range(len(masks) - 1):
        order = masks[layer].sum(1).argsort(kind="stable")
        masks[layer], masks[layer + 1] = masks[layer][order], masks[layer + 1][:, order]
    return masks


def masks_figure(masked: Mapping[str, list[np.ndarray]], width: float) -> Figure:
    most = max(map(len, masked.values())) + 1
    figure = Figure(figsize=(width, 0.3 * width * len(masked)), layout="constrained")
    panels = figure.subplots(len(masked), most, squeeze=False)
    for line, (address, masks) in zip(panels, masked.items(), strict=True):
        paths = np.linalg.multi_dot([mask.astype(float) for mask in reversed(masks)])
        for axes in line:
            axes.axis("off")
        for axes, image in zip(line[: len(masks) + 1], [*masks, paths], strict=True):
            shown = {"cmap": "Blues", "norm": PowerNorm(0.25)} if image is paths else {"cmap": "gray_r"}
            axes.imshow(image, aspect="auto", interpolation="nearest", **shown)
        layers = ["inputs", *(f"layer {n}" for n in range(1, len(masks))), "outputs"]
        for axes, pair in zip(line[: len(masks)], pairwise(layers), strict=True):
            axes.set_title(" to ".join(pair), fontsize=7)
        line[0].set_title(f"{address}: inputs to layer 1", fontsize=7)
        line[len(masks)].set_title("paths, inputs to outputs", fontsize=7)
    return figure
