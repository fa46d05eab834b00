"""Pictures of face verification: the pairs that each method got most wrong.

Only procedural faces are shown; photographs of people never are.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from replications.records import RunRecord
from replications.tasks.base import Album, Picture

METHODS_SHOWN = 8
NAME_WIDTH = 0.9  # inches


def draw(album: Album) -> Iterator[Picture]:
    """Yield the picture of wrong pairs where the runs name such pairs of one procedural test set."""
    chosen: dict[str, dict[str, RunRecord]] = {}
    for address in album.addresses:
        record = next(iter(album.runs(address).values()), None)
        if record and album.role(address) != "ablation" and record.extra.get("worst_pairs"):
            chosen.setdefault(record.spec.data.get("test", ""), {})[address] = record
    for key, by_address in chosen.items():
        if album.kind(key) != "procedural":
            continue
        arrays = album.open_set(key)
        if arrays is not None:
            shown = dict(list(by_address.items())[:METHODS_SHOWN])
            yield Picture(
                "wrong",
                partial(wrong_pairs, shown, arrays, album.width),
                "Pairs of procedural images that each method got most wrong, with truth and score.",
                "Pairs that each method got most wrong (lowest seed): the truth, and how far the score lies above or "
                "below the threshold. The images are procedural: they show no person.",
            )
        return


def wrong_pairs(
    chosen: Mapping[str, RunRecord], arrays: Mapping[str, np.ndarray], width: float, columns: int = 8
) -> Figure:
    """The pairs that each method's record names as most wrong: false rejects, then false accepts.

    `arrays` are those of a procedural test set, ``images`` [N, H, W, 3]; `width` is in inches. A record's
    ``extra["worst_pairs"]`` are ``{"rows": [a, b], "same": bool, "score": s, "threshold": t}``, worst first.
    """
    images = arrays["images"]
    rows = {address: _half_and_half(record, columns) for address, record in chosen.items()}
    height, breadth = images.shape[1:3]
    across, down = 2.2 * breadth, 1.45 * height
    inches = (width - NAME_WIDTH) / columns
    figure = Figure(figsize=(width, len(rows) * inches * down / across + 0.1))
    axes = figure.add_axes((NAME_WIDTH / width, 0, 1 - NAME_WIDTH / width, 1))
    axes.axis("off")
    for line, (address, entries) in enumerate(rows.items()):
        top = line * down + 0.35 * height
        name = address.replace("/", "/\n")
        axes.text(-0.1 * breadth, top + height / 2, name, ha="right", va="center", fontsize=7.5)
        for place, entry in enumerate(entries):
            left = place * across
            for side, image in enumerate(entry["rows"]):
                x = left + side * 1.04 * breadth
                axes.imshow(images[image], extent=(x, x + breadth, top + height, top))
            truth = "same" if entry["same"] else "different"
            title = f"{truth}, {entry['score'] - entry['threshold']:+.2f}".replace("-", "−")
            axes.text(left + 1.02 * breadth, top - 0.05 * height, title, ha="center", va="bottom", fontsize=6.5)
    axes.set(xlim=(0, columns * across), ylim=(len(rows) * down + 0.05 * height, 0), aspect="auto")
    return figure


def _half_and_half(record: RunRecord, count: int) -> list[dict]:
    """Up to `count` wrong pairs, half of them of the same identity where there are enough of both."""
    entries = record.extra.get("worst_pairs", [])
    rejects = [entry for entry in entries if entry["same"]]
    accepts = [entry for entry in entries if not entry["same"]]
    first = rejects[: max(count // 2, count - len(accepts))]
    return first + accepts[: count - len(first)]
