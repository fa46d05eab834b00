"""Pictures of text classification: bits a masked word over the pretraining, accuracy by number of labelled texts."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from replications.records import RunRecord
from replications.tasks.base import Album, Picture
from replications.tasks.seed_line import seed_line

HEIGHT = 2.9  # inches
LABELS = re.compile(r"accuracy_(\d+)")


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records give something for, of the set that most rows have."""
    runs = {address: found for address in album.addresses if (found := list(album.runs(address).values()))}
    keys = [records[0].spec.data["texts"] for records in runs.values()]
    key = max(keys, key=keys.count, default=None)
    runs = {address: records for address, records in runs.items() if records[0].spec.data["texts"] == key}
    pretrained = {address: records for address, records in runs.items() if "masked_bits" in records[0].curves}
    if pretrained:
        yield Picture(
            "bits",
            lambda: bits_figure(pretrained, album),
            "Bits a masked word of each method against the steps of its pretraining.",
            "Bits a masked word of validation texts, all shown as masks, over the pretraining: means over seeds with "
            "their range. Dashed: words told by their frequency alone.",
            publish=True,
        )
    if runs:
        yield Picture(
            "labels",
            lambda: labels_figure(runs, album),
            "Accuracy of each method against the number of labelled texts.",
            "Texts classified correctly against the number of labelled texts, means over seeds with their range.",
            publish=True,
        )


def bits_figure(pretrained: Mapping[str, Sequence[RunRecord]], album: Album) -> Figure:
    """Draw bits over steps, one line a method."""
    figure = Figure(figsize=(album.width, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for address, records in pretrained.items():
        bits = np.array([record.curves["masked_bits"].y for record in records])
        seed_line(axes, album.look(address), address, records[0].curves["masked_bits"].x, bits)
    unigram = next(iter(pretrained.values()))[0].metrics["unigram_bits"]
    axes.axhline(unigram, color="#7F7F7F", linestyle="--", linewidth=0.8)
    axes.set(xlabel="steps of pretraining", ylabel="bits a masked word")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def labels_figure(runs: Mapping[str, Sequence[RunRecord]], album: Album) -> Figure:
    """Draw accuracy over the number of labelled texts, one line a method."""
    figure = Figure(figsize=(album.width, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for address, records in runs.items():
        numbers = sorted(int(match[1]) for name in records[0].metrics if (match := LABELS.fullmatch(name)))
        accuracy = np.array([[record.metrics[f"accuracy_{n}"] for n in numbers] for record in records])
        seed_line(axes, album.look(address), address, numbers, accuracy)
    axes.set_xscale("log")
    axes.set_xticks(numbers, [f"{n:,}" for n in numbers])
    axes.minorticks_off()
    axes.set(xlabel="labelled texts", ylabel="accuracy, %")
    figure.legend(loc="outside right upper", frameon=False)
    return figure
