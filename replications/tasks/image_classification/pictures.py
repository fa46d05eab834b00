"""Pictures of image classification: reconstructions, accuracy by mask ratio and by labels, attention, throughput.

Samples of a data set are never published; curves are.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from replications.tasks.base import Album, Picture
from replications.tasks.log_axis import log_axis

SHOWN = 6
LEGEND = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.02), "handlelength": 2.6}


def draw(album: Album) -> Iterator[Picture]:
    """Yield what the records and arrays of the runs give."""
    for address in album.addresses:
        if album.role(address) == "method" and (arrays := _arrays(album, address, "picture_mask_75")):
            yield Picture(
                "reconstructions",
                partial(reconstructions, arrays, album.width),
                f"Test images, masked at several ratios, and what {address} makes of them.",
                f"Reconstructions of test images by {address} (lowest seed), trained at "
                f"{_percent(album, address)} % masked. Visible patches are shown as they are. Where the target is "
                "normalised, a hidden patch is shown with its own mean and contrast, which the network does not know.",
            )
            break
    yield Picture(
        "mask_ratio",
        lambda: by_mask_ratio(album),
        "Linear probe, k-NN probe and finetuned accuracy against the share of hidden patches.",
        "Accuracy against the share of patches hidden in pretraining, random masks: mean over seeds, bars from the "
        "least to the greatest seed.",
        publish=True,
    )
    yield Picture(
        "labels",
        lambda: by_labels(album),
        "Accuracy against the number of labels, log scale, for every method that was trained on several.",
        "Top-1 against the number of labelled training images (log scale): mean over seeds, bands from the least "
        "to the greatest seed. What is pretrained has seen all training images without labels.",
        publish=True,
    )
    shown = {a: arrays for a in album.addresses if (arrays := _arrays(album, a, "picture_attention"))}
    chosen = [a for a in shown if album.role(a) != "ablation"][:2]
    if chosen:
        yield Picture(
            "attention",
            lambda: attention({a: shown[a] for a in chosen}, album.width),
            "Test images and where the class token of the last block looks.",
            "Attention of the class token in the last block, mean over heads (lowest seed): bright where it looks.",
        )
    yield Picture(
        "throughput",
        lambda: throughput(album),
        "Accuracy against training throughput of the run's own loop.",
        "Top-1 against training images a second, pretraining and classifiers together, without probes (log scale). "
        "Runs may have shared the machine; speed measured by itself is in the leaderboard.",
        publish=True,
    )


def _arrays(album: Album, address: str, needed: str) -> Mapping[str, Any]:
    for seed in sorted(album.runs(address)):
        arrays = album.arrays(address, seed)
        return arrays if needed in arrays else {}
    return {}


def _percent(album: Album, address: str) -> str:
    return f"{100 * _mask_ratio(next(iter(album.runs(address).values()))):g}"


def _mask_ratio(record) -> float:
    return float(record.spec.options.get("mask_ratio", 0.75))


def reconstructions(arrays: Mapping[str, Any], width: float) -> Figure:
    """A row an image: the original, then masked and reconstructed at 50, 75 and 90 %."""
    images = arrays["picture_image"][:SHOWN]
    ratios = [name for name in ("50", "75", "90") if f"picture_mask_{name}" in arrays]
    columns = 1 + 2 * len(ratios)
    left, top = 0.05, 0.4
    cell = (width - left) / (columns + 0.25 * len(ratios))
    height = top + len(images) * cell
    figure = Figure(figsize=(width, height))

    def place(row: int, x: float, picture: np.ndarray, title: str) -> None:
        y = 1 - (top + (row + 1) * cell) / height
        axes = figure.add_axes((x / width, y, 0.95 * cell / width, 0.95 * cell / height))
        axes.imshow(picture, interpolation="nearest")
        axes.axis("off")
        if row == 0:
            axes.set_title(title, loc="center", fontsize=8, pad=4)

    for row, image in enumerate(images):
        place(row, left, image, "original")
        for index, name in enumerate(ratios):
            x = left + cell * (1.25 + 2.25 * index)
            place(row, x, hide(image, arrays[f"picture_mask_{name}"][row]), f"{name} % masked")
            place(row, x + cell, arrays[f"picture_reconstruction_{name}"][row], "reconstructed")
    return figure


def hide(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Grey out the patches of `mask` bool ``[rows, columns]`` in an image uint8 ``[H, W, 3]``."""
    side = image.shape[0] // len(mask)
    hidden = mask.repeat(side, 0).repeat(side, 1)[..., None]
    return np.where(hidden, np.uint8(128), image)


def by_mask_ratio(album: Album) -> Figure | None:
    """Probe and finetuned accuracy against the mask ratio, of runs that differ in nothing else."""
    wanted = (
        ("accuracy", "finetuned", "#0072B2", "o"),
        ("linear_accuracy", "linear probe", "#D55E00", "s"),
        ("knn_accuracy", "k-NN probe", "#009E73", "D"),
    )
    points: dict[float, list] = {}
    for address in album.addresses:
        records = [record for record in album.runs(address).values() if "reconstruction_loss" in record.metrics]
        plain = {"mask_ratio", "tell_speed"} | _shared_options(album)
        if records and not set(records[0].spec.options) - plain:
            points.setdefault(_mask_ratio(records[0]), []).extend(records)
    if len(points) < 2:
        return None
    figure = Figure(figsize=(album.width, 3.4), layout="constrained")
    axes = figure.subplots()
    ratios = sorted(points)
    for metric, name, colour, marker in wanted:
        values = [np.array([record.metrics[metric] for record in points[ratio]]) for ratio in ratios]
        middle = np.array([value.mean() for value in values])
        reach = [[m - v.min(), v.max() - m] for m, v in zip(middle, values, strict=True)]
        x = [100 * ratio for ratio in ratios]
        axes.errorbar(x, middle, yerr=np.array(reach).T, color=colour, marker=marker, capsize=2.5, label=name)
    axes.set(xlabel="patches hidden (%)", ylabel="top-1 (%), test images", xticks=[100 * ratio for ratio in ratios])
    axes.legend(**LEGEND)
    return figure


def _shared_options(album: Album) -> set[str]:
    """Return the options that every run of the task has: they are the tier's, not a method's own."""
    found = [set(record.spec.options) for a in album.addresses for record in album.runs(a).values()]
    return set.intersection(*found) if found else set()


def by_labels(album: Album) -> Figure | None:
    """Top-1 against the number of labels, of every method with several fractions; ablations thin."""
    series: dict[str, tuple[list[int], np.ndarray]] = {}
    for address in album.addresses:
        records = list(album.runs(address).values())
        if records and len(labels := records[0].extra.get("labels", {})) > 1:
            series[address] = (list(labels.values()), np.array([_curve(record, labels) for record in records]))
    if not series:
        return None
    figure = Figure(figsize=(album.width, 4.0), layout="constrained")
    axes = figure.subplots()
    for address, (x, values) in sorted(series.items(), key=lambda entry: -entry[1][1][:, -1].mean()):
        look, main = album.look(address), album.role(address) != "ablation"
        axes.plot(
            x, values.mean(0), color=look.colour, linestyle=look.dash, marker=look.marker if main else None,
            linewidth=1.8 if main else 0.9, alpha=1 if main else 0.7, label=address,
        )  # fmt: skip
        if main and len(values) > 1:
            axes.fill_between(x, values.min(0), values.max(0), color=look.colour, alpha=0.12, linewidth=0)
    ticks = next(iter(series.values()))[0]
    axes.set(xscale="log", xlabel="labelled training images (log scale)", ylabel="top-1 (%), test images")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(**LEGEND)
    return figure


def _curve(record, names: Sequence[str]) -> list[float]:
    return [record.metrics["accuracy" if name == "100pct" else f"accuracy_{name}"] for name in names]


def attention(by_address: Mapping[str, Mapping[str, Any]], width: float) -> Figure:
    """A column an image; below it, for each method, the class token's attention laid over it."""
    images = next(iter(by_address.values()))["picture_image"][:SHOWN]
    name_width = 1.0
    cell = (width - name_width) / len(images)
    figure = Figure(figsize=(width, cell * (1 + len(by_address))))
    axes = figure.add_axes((name_width / width, 0, 1 - name_width / width, 1))
    axes.axis("off")
    side = images.shape[1]
    rows = [("image", images)]
    for address, arrays in by_address.items():
        maps = arrays["picture_attention"][:SHOWN].astype(float)
        maps = maps / maps.max((1, 2), keepdims=True)
        fold = side // maps.shape[1]
        weight = maps.repeat(fold, 1).repeat(fold, 2)[..., None]
        rows.append((address.replace("/", "/\n"), (images * (0.15 + 0.85 * weight)).astype(np.uint8)))
    step = 1.06 * side
    for line, (name, pictures) in enumerate(rows):
        axes.text(-0.1 * side, line * step + side / 2, name, ha="right", va="center", fontsize=8)
        for place, picture in enumerate(pictures):
            x, y = place * step, line * step
            axes.imshow(picture, extent=(x, x + side, y + side, y), interpolation="nearest")
    axes.set(xlim=(0, len(images) * step), ylim=(len(rows) * step, 0), aspect="auto")
    return figure


def throughput(album: Album) -> Figure | None:
    """Top-1 against training images a second, a point a method."""
    figure = Figure(figsize=(album.width, 3.8), layout="constrained")
    axes = figure.subplots()
    found = []
    for address in album.addresses:
        records = [record for record in album.runs(address).values() if "images_per_second" in record.extra]
        if records:
            rate = float(np.mean([record.extra["images_per_second"] for record in records]))
            found.append((float(np.mean([record.metrics["accuracy"] for record in records])), rate, address))
    if len(found) < 2:
        return None
    for accuracy, rate, address in sorted(found, reverse=True):
        look, main = album.look(address), album.role(address) != "ablation"
        axes.plot(
            rate, accuracy, linestyle="", marker=look.marker, color=look.colour, markersize=6.5,
            markerfacecolor=look.colour if main else "white", label=address,
        )  # fmt: skip
    axes.set(xlabel="training images a second (log scale)", ylabel="top-1 (%), test images")
    log_axis(axes.xaxis, lambda rate, _: f"{rate:,g}")
    axes.legend(**LEGEND, title="open: ablation")
    return figure
