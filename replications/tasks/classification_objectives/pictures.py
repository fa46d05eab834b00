"""Pictures: rate against accuracy, what a code forgets, a code in the plane; precision and recall of a rare class."""

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.figure import Figure

from replications.tasks.base import Album, Picture
from replications.tasks.log_axis import log_axis


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the runs have something for."""
    runs = {address: found for address in album.addresses if (found := album.runs(address))}
    first = {address: album.arrays(address, min(found)) for address, found in runs.items()}
    rates = {a: found for a, found in runs.items() if all("information" in r.metrics for r in found.values())}
    if len(rates) > 1:
        yield Picture(
            "information",
            lambda: information(album, rates, [a for a in runs if a not in rates and "picture_input" in first[a]]),
            "Accuracy against the bound on the information that the code has of the input.",
            "Accuracy, by many draws of the code (filled) and by one (hollow), against the bound on I(Z; X); a mark is "
            "the mean over seeds. Lines without a mark: networks with a deterministic code.",
            publish=True,
        )
    restored = {a: x for a, x in first.items() if "picture_restored" in x and "code" not in x}
    if restored:
        yield Picture(
            "forgotten",
            lambda: forgotten(album, restored),
            "Test images above what a linear map of their code, and their class, give back of them.",
            "Test images (above) and what their class and a linear map of one draw of their code give back (lowest "
            "seed). A code that has forgotten all but the class gives back the mean image of the class.",
        )
    plane = next((a for a, x in first.items() if "code" in x), None)
    if plane is not None:
        yield Picture(
            "plane",
            lambda: code_plane(first[plane], album.width),
            "Codes of two dimensions, coloured by class.",
            f"One draw of the code of each test sample, coloured by class: {plane}, lowest seed.",
            publish=True,
        )
    rare = {a: x for a, x in first.items() if "tuning_label" in x}
    if rare:
        yield Picture(
            "precision_recall",
            lambda: precision_recall(album, rare),
            "Precision against recall of the rare class.",
            "Precision and recall of the rare class (lowest seed); the mark is threshold 0.5. Objectives whose curves "
            "coincide differ by their threshold alone.",
            publish=True,
        )


def information(album: Album, rates: Mapping, plain: list[str]) -> Figure:
    """Accuracy against the rate, by row; rows without a rate as horizontal lines."""
    figure = Figure(figsize=(album.width * 0.75, album.width * 0.45), layout="constrained")
    axes = figure.subplots()

    def mean(address: str, name: str) -> float:
        return float(np.mean([record.metrics[name] for record in album.runs(address).values()]))

    for address in rates:
        look, x = album.look(address), mean(address, "information")
        axes.plot(x, mean(address, "accuracy"), look.marker, color=look.colour, label=address)
        axes.plot(x, mean(address, "accuracy_1"), look.marker, color=look.colour, fillstyle="none")
    for address in plain:
        look = album.look(address)
        axes.axhline(mean(address, "accuracy"), color=look.colour, linestyle=look.dash, label=address)
    log_axis(axes.xaxis)
    axes.set(xlabel="bound on I(Z; X) (nats)", ylabel="accuracy (%)")
    axes.legend(fontsize=7, frameon=False)
    return figure


def forgotten(album: Album, methods: Mapping[str, Mapping]) -> Figure:
    """The inputs, and a line of restored images for each method."""
    inputs = next(iter(methods.values()))["picture_input"]
    lines = {"input": inputs} | {address: arrays["picture_restored"] for address, arrays in methods.items()}
    inches = (album.width - 1.4) / max(len(inputs), 6)
    figure = Figure(figsize=(album.width, inches * len(lines)), layout="none")
    panels = figure.subplots(len(lines), len(inputs), squeeze=False)
    figure.subplots_adjust(1.4 / album.width, 0, 1, 1, 0.04, 0.04)
    for line, (name, images) in zip(panels, lines.items(), strict=True):
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
            axes.axis("off")
        text = name.replace("/", "/\n")
        line[0].text(-0.1, 0.5, text, transform=line[0].transAxes, ha="right", va="center", fontsize=7)
    return figure


def code_plane(arrays: Mapping[str, np.ndarray], width: float) -> Figure:
    """A point a sample."""
    figure = Figure(figsize=(width * 0.6, width * 0.5), layout="constrained")
    axes = figure.subplots()
    points = axes.scatter(*arrays["code"].T, c=arrays["label"], s=5, cmap="tab10", linewidths=0)
    axes.set(xlabel="first dimension of the code", ylabel="second", aspect="equal")
    axes.legend(
        *points.legend_elements(), title="class", fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return figure


def precision_recall(album: Album, methods: Mapping[str, Mapping]) -> Figure:
    """Draw one curve per method, with the point of threshold 0.5 if anything is predicted there."""
    from sklearn.metrics import precision_recall_curve

    figure = Figure(figsize=(album.width * 0.75, album.width * 0.5), layout="constrained")
    axes = figure.subplots()
    for address, arrays in methods.items():
        look, rare, p = album.look(address), arrays["label"] == 1, np.exp(arrays["log_probability"][:, 1])
        precision, recall, _ = precision_recall_curve(rare, p)
        axes.plot(100 * recall, 100 * precision, color=look.colour, linestyle=look.dash, linewidth=1, label=address)
        if (predicted := p > 0.5).any():
            right = (predicted & rare).sum()
            axes.plot(100 * right / rare.sum(), 100 * right / predicted.sum(), look.marker, color=look.colour)
    axes.set(xlabel="recall (%)", ylabel="precision (%)", ylim=(0, 102))
    axes.legend(fontsize=7, frameon=False)
    return figure
