"""Pictures of face verification: the pairs that each method got most wrong, and test sets in several forms.

Only procedural faces are shown; photographs of people never are.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from replications.datasets.registry import load
from replications.records import RunRecord
from replications.tasks.base import Album, Picture

FORMS = "faces.forms"  # the preparer of forms
METHODS_SHOWN = 8
FACES_SHOWN = 9
NAME_WIDTH = 0.9  # inches
FORM_WIDTH = 1.5  # inches, of a form's name


def draw(album: Album) -> Iterator[Picture]:
    """Yield the forms in which procedural faces were tested, and the wrong pairs that the runs name of one such set."""
    yield from _forms(album)
    yield from _wrong(album)


def _forms(album: Album) -> Iterator[Picture]:
    """Yield the same test images in each form of a procedural set, where methods were tested on several."""
    tested = {}
    for address in album.addresses:
        for record in list(album.runs(address).values())[:1]:
            key = record.spec.data.get("test", "")
            known = load().sets.get(key)
            if known and known.kind == "procedural" and known.preparer == FORMS:
                tested[key] = known.title
    sheets = {tested[key]: faces for key in sorted(tested) if (faces := _first_faces(album, key)) is not None}
    if len(sheets) > 1:
        yield Picture(
            "forms",
            partial(forms, sheets, album.width),
            "The same procedural faces in each form in which they were tested.",
            "The first image of nine test people in each form, at half size. They are procedural: they show no person.",
            publish=True,
        )


def _first_faces(album: Album, key: str) -> np.ndarray | None:
    """Return a first image of each test person at half size, ``[n, side, side, 3]``; None for an unreadable set."""
    arrays = album.open_set(key)
    if arrays is None:
        return None
    people, first = np.unique(np.where(arrays["fold"] > 0, arrays["identity"], -1), return_index=True)
    images = np.asarray(arrays["images"][first[people >= 0][:FACES_SHOWN]], np.float32)
    side = images.shape[1] // 2
    return images[:, : 2 * side, : 2 * side].reshape(-1, side, 2, side, 2, 3).mean((2, 4)).astype(np.uint8)


def forms(sheets: Mapping[str, np.ndarray], width: float) -> Figure:
    """A line of images for each form, by its title; `sheets` are uint8 ``[n, side, side, 3]``, `width` in inches."""
    line = (width - FORM_WIDTH) / max(map(len, sheets.values()))
    figure = Figure(figsize=(width, len(sheets) * line))
    panels = figure.subplots(len(sheets), squeeze=False, gridspec_kw={"hspace": 0.02})[:, 0]
    figure.subplots_adjust(FORM_WIDTH / width, 0, 1, 1)
    for axes, (title, faces) in zip(panels, sheets.items(), strict=True):
        axes.imshow(np.concatenate(list(faces), axis=1), interpolation="none")
        axes.text(-4, faces.shape[1] / 2, wrap(title), ha="right", va="center", fontsize=7)
        axes.axis("off")
    return figure


def wrap(title: str) -> str:
    """Return what distinguishes the form: the part behind the set's name, a line each."""
    return "\n".join(title.split(", ")[1:])


def _wrong(album: Album) -> Iterator[Picture]:
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
