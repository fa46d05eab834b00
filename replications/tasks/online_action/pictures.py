"""Pictures of online actions: mAP over the frames ahead, and what each method says of one stream as it goes by."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from replications.records import RunRecord
from replications.tasks.base import Album, Picture
from replications.tasks.seed_line import seed_line

HEIGHT = 2.9  # inches
FRAMES = 128  # shown of a stream
BEFORE = 8  # of them before the first action
ROWS = 8
ACTIONS = 10  # in the legend: of a set with more, those that the stream has
LEVELS = 48  # pixels of a row of probabilities


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records give something for."""
    runs = {address: found for address in album.addresses if (found := album.runs(address))}
    if runs:
        yield Picture(
            "ahead",
            lambda: ahead_figure({address: list(found.values()) for address, found in runs.items()}, album),
            "mAP of each method against the number of frames ahead, 0 being now.",
            "mAP of the action now (0) and of the frames ahead, means over seeds with their range. A point alone is a "
            "method that tells only the action now.",
            publish=True,
        )
    arrays = {a: found for a in list(runs)[:ROWS] if (found := album.arrays(a, min(runs[a]))) and "scores" in found}
    if arrays:
        classes = {address: runs[address][min(runs[address])].extra["classes"] for address in arrays}
        yield Picture(
            "stream",
            lambda: stream_figure(arrays, next(iter(classes.values())), album.width),
            "A stream from left to right: the true actions on top, below them each method's probabilities, in colours.",
            "One test stream, not chosen. On top the truth; below, what each method says at each frame from those seen "
            "so far (first seed): the height of a colour is the probability of its action, white is background.",
            publish=True,
        )


def ahead_figure(runs: Mapping[str, Sequence[RunRecord]], album: Album) -> Figure:
    """Draw mAP over the frames ahead."""
    figure = Figure(figsize=(album.width, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for address, records in runs.items():
        found = np.array([record.curves["ahead"].y for record in records])
        seed_line(axes, album.look(address), address, records[0].curves["ahead"].x, found, markersize=4)
    axes.set(xlabel="frames ahead", ylabel="mAP, %")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def stream_figure(arrays: Mapping[str, Mapping[str, np.ndarray]], classes: Sequence[str], width: float) -> Figure:
    """Draw the truth and a row of probabilities for each method."""
    first = next(iter(arrays.values()))
    shown = stretch(first["target"], first["bounds"])
    target = first["target"][shown].astype(float)
    colours = np.array([matplotlib.colormaps["tab20"](i % 20)[:3] for i in range(target.shape[1])])
    figure = Figure(figsize=(width, 0.45 + 0.42 * (1 + len(arrays))), layout="constrained")
    panels = figure.subplots(1 + len(arrays), 1, sharex=True, squeeze=False)[:, 0]
    rows = {"truth": target, **{a: np.exp(found["scores"][shown, 0].astype(float)) for a, found in arrays.items()}}
    for axes, (name, shares) in zip(panels, rows.items(), strict=True):
        image = stacked(shares, colours)
        axes.imshow(image, aspect="auto", interpolation="nearest", extent=(-0.5, len(shares) - 0.5, 0, 1))
        axes.set(yticks=[])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    panels[-1].set_xlabel("frame")
    few = target.shape[1] <= ACTIONS
    seen = range(target.shape[1]) if few else np.flatnonzero(target.any(0))[:ACTIONS]
    patches = [Patch(color=colours[i], label=classes[1 + i]) for i in seen]
    figure.legend(handles=patches, loc="outside right upper", frameon=False, fontsize="small")
    return figure


def stretch(target: np.ndarray, bounds: np.ndarray) -> slice:
    """Return the frames that are shown: of the first stream with an action, from a little before its first."""
    start, stop = next((a, b) for a, b in pairwise(bounds) if target[a:b].any())
    first = start + max(0, int(np.argmax(target[start:stop].any(1))) - BEFORE)
    first = max(start, min(first, stop - FRAMES))
    return slice(int(first), int(min(first + FRAMES, stop)))


def stacked(shares: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return an image ``[LEVELS, frames, 3]`` in which each action has the height of its share, from below."""
    height = (np.arange(LEVELS)[::-1] + 0.5) / LEVELS
    top = np.cumsum(shares / np.maximum(1, shares.sum(1, keepdims=True)), axis=1)
    action = (height[:, None, None] > top).sum(2)  # as many as there are actions: background
    return np.vstack([colours, np.ones(3)])[action]
