"""Figures over images: detections, attention, the matching."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from replications.datasets.decoding import decode
from replications.records import RunRecord

IMAGES, QUERIES = 5, 3
COLOURS = ("#ffd400", "#00e5ff", "#ff5cf4", "#7dff5c", "#ff9a3c", "#ffffff")  # of classes, on photographs


@dataclass(frozen=True)
class Shown:
    """A method with what one of its runs left: the lowest seed that left arrays."""

    address: str
    record: RunRecord
    arrays: Mapping[str, np.ndarray]

    @property
    def test(self) -> str:
        return self.record.spec.data["test"]


def picture_of(data: Mapping[str, np.ndarray], row: int) -> np.ndarray:
    """Return the image of a row of a prepared set, uint8 ``[H, W, 3]``."""
    if "images" in data:
        return np.asarray(data["images"][row])
    start, end = data["file_start"][row : row + 2]
    return np.asarray(decode(bytes(data["files"][start:end]), f"the image of row {row}"))


def _frame(axes, image: np.ndarray, dim: float = 1.0) -> None:
    axes.imshow(
        (image * dim).astype(np.uint8),
        interpolation="nearest",
        extent=(0, 1, 1, 0),
        aspect=image.shape[0] / image.shape[1],
    )
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(1, 0))


def _box(axes, box: Sequence[float], colour: str, text: str = "", style: str = "-", width: float = 1.6) -> None:
    left, top, right, bottom = np.clip(box, 0, 1)
    for line, under in ((width + 1.4, "black"), (width, colour))[style == ":" :]:  # dotted: lightly
        axes.add_patch(
            Rectangle(
                (left, top), right - left, bottom - top, fill=False, edgecolor=under, linewidth=line, linestyle=style
            )
        )
    if text:
        low = top > 0.1
        axes.text(
            left, top if low else bottom, text, fontsize=5.5, va="bottom" if low else "top", color="black",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.6, "alpha": 0.9}, clip_on=True,
        )  # fmt: skip


def _truth(data: Mapping[str, np.ndarray], row: int) -> list[tuple[np.ndarray, int, bool]]:
    """Return (box as fractions, class, crowd) of a row's objects."""
    height, width = data["image_size"][row]
    places = np.flatnonzero(data["labels"][row] >= 0)
    size = np.array([width, height, width, height], np.float32)
    return [(data["boxes"][row, i] / size, int(data["labels"][row, i]), bool(data["crowd"][row, i])) for i in places]


def detections(data: Mapping[str, np.ndarray], board: Sequence[Shown], width: float) -> Figure:
    """A row an image: the truth, then each method's surest detections, in all as many as there are objects.

    Scores of a softmax and of sigmoids do not compare, so one threshold would not do for all.
    """
    rows = board[0].arrays["row"][:IMAGES]
    names = board[0].record.extra["classes"]
    columns = 1 + len(board)
    across = width / columns
    images = [picture_of(data, row) for row in rows]
    heights = [image.shape[0] / image.shape[1] for image in images]
    figure = Figure(figsize=(width, across * sum(heights) * 1.04 + 0.45), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    count = sum(not crowd for row in rows for _, _, crowd in _truth(data, row))
    sure = {one.address: np.sort(one.arrays["scores"][: len(rows)], axis=None)[-max(count, 1) :][0] for one in board}
    crowded = max(len(_truth(data, row)) for row in rows) > 8
    for line, (row, image) in enumerate(zip(rows, images, strict=True)):
        _frame(grid[line, 0], image)
        for box, label, crowd in _truth(data, row):
            text = "" if crowded else names[label]
            _box(grid[line, 0], box, COLOURS[label % len(COLOURS)], text, "--" if crowd else "-")
        for column, one in enumerate(board, start=1):
            _frame(grid[line, column], image)
            found = zip(
                *(one.arrays[name][line].astype(np.float32) for name in ("boxes", "scores", "labels")), strict=True
            )
            for box, score, label in found:
                if score >= sure[one.address]:
                    text = "" if crowded else f"{names[int(label)]} {score:.2f}"
                    _box(grid[line, column], box, COLOURS[int(label) % len(COLOURS)], text)
    for axes, title in zip(grid[0], ["annotated", *(one.address.replace("/", "/\n") for one in board)], strict=True):
        axes.set_title(title, fontsize=8)
    return figure


def _surest(lead: Shown, image: int, count: int) -> np.ndarray:
    """Return the queries of an image whose best class scores highest."""
    logits = lead.arrays["raw_logits"][image].astype(np.float32)
    if logits.shape[1] > len(lead.record.extra["classes"]):  # the last is "no object"
        p = np.exp(logits - logits.max(1, keepdims=True))
        best = (p / p.sum(1, keepdims=True))[:, :-1].max(1)
    else:
        best = logits.max(1)
    return np.argsort(-best)[:count]


def _heat(axes, image: np.ndarray, weights: np.ndarray) -> None:
    _frame(axes, image, 0.55)
    weights = weights.astype(np.float32) / max(float(weights.max()), 1e-6)
    axes.imshow(weights, extent=(0, 1, 1, 0), cmap="inferno", alpha=0.6, interpolation="bilinear", vmin=0, vmax=1,
                aspect=image.shape[0] / image.shape[1])  # fmt: skip


def decoder_attention(data: Mapping[str, np.ndarray], lead: Shown, width: float) -> Figure:
    """A row an image: the image, then the attention of its surest queries with their boxes."""
    rows = lead.arrays["row"][: IMAGES - 1]
    images = [picture_of(data, row) for row in rows]
    columns = 1 + QUERIES
    tall = images[0].shape[0] / images[0].shape[1]
    figure = Figure(figsize=(width, len(rows) * width / columns * tall * 0.99 + 0.25), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, image in enumerate(images):
        _frame(grid[line, 0], image)
        for place, query in enumerate(_surest(lead, line, QUERIES)):
            axes = grid[line, 1 + place]
            _heat(axes, image, lead.arrays["decoder_attention"][line, query])
            _box(axes, lead.arrays["raw_boxes"][line, query].astype(np.float32), COLOURS[place], f"query {query}")
    grid[0, 0].set_title("image", fontsize=8)
    for place in range(QUERIES):
        grid[0, 1 + place].set_title(("surest query", "second", "third")[place], fontsize=8)
    return figure


def encoder_attention(data: Mapping[str, np.ndarray], lead: Shown, width: float) -> Figure | None:
    """A row an image: the image with points, then the self-attention of each point."""
    rows = lead.arrays["row"]
    chosen = sorted(range(len(rows)), key=lambda i: -len(_truth(data, rows[i])))[: IMAGES - 1]
    chosen = [i for i in chosen if _truth(data, rows[i])]
    if not chosen:
        return None
    columns = 1 + min(QUERIES, len(_truth(data, rows[chosen[0]])))
    images = [picture_of(data, lead.arrays["row"][i]) for i in chosen]
    tall = images[0].shape[0] / images[0].shape[1]
    figure = Figure(figsize=(width, len(chosen) * width / columns * tall * 0.99 + 0.25), layout="constrained")
    grid = figure.subplots(len(chosen), columns, squeeze=False)
    for line, (index, image) in enumerate(zip(chosen, images, strict=True)):
        maps = lead.arrays["encoder_attention"][index]
        height, breadth = maps.shape[1:]
        _frame(grid[line, 0], image)
        points = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b, _, _ in _truth(data, lead.arrays["row"][index])][
            :QUERIES
        ]
        for place in range(columns - 1):
            axes = grid[line, 1 + place]
            if place >= len(points):
                axes.axis("off")
                continue
            x, y = np.clip(points[place], 0, 0.999)
            _heat(axes, image, maps[int(y * height) * breadth + int(x * breadth)])
            for target in (axes, grid[line, 0]):
                target.plot(x, y, "x", color="black", markersize=8, markeredgewidth=3)
                target.plot(x, y, "x", color=COLOURS[place], markersize=7, markeredgewidth=1.6)
    grid[0, 0].set_title("image and points", fontsize=8)
    for place in range(columns - 1):
        grid[0, 1 + place].set_title(f"from {('the first', 'the second', 'the third')[place]} point", fontsize=8)
    return figure


def matching(data: Mapping[str, np.ndarray], lead: Shown, width: float) -> Figure | None:
    """The image with most objects: boxes of queries and objects, and the table of costs with its assignment."""
    import torch

    from replications.layers.detection.boxes import to_cxcywh
    from replications.layers.detection.matcher import MatchCost, matching_cost

    truths = [[entry for entry in _truth(data, row) if not entry[2]] for row in lead.arrays["row"]]
    image = max(range(len(truths)), key=lambda i: len(truths[i]))
    objects, names = truths[image], lead.record.extra["classes"]
    logits = torch.from_numpy(lead.arrays["raw_logits"][image].astype(np.float32))
    queries = len(logits)
    if not objects or len(objects) > 8 or queries > 24:
        return None
    from scipy.optimize import linear_sum_assignment

    boxes = lead.arrays["raw_boxes"][image].astype(np.float32)
    targets = torch.from_numpy(np.stack([box for box, _, _ in objects]))
    labels = torch.tensor([[label for _, label, _ in objects]])
    weights = MatchCost(focal=logits.shape[1] == len(names))
    table = matching_cost(
        logits[None, None], to_cxcywh(torch.from_numpy(boxes))[None, None], labels, to_cxcywh(targets)[None], weights
    )[0, 0].numpy()
    chosen, places = linear_sum_assignment(table)
    figure = Figure(figsize=(width, width * 0.46), layout="constrained")
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1, 1)})
    _frame(left, picture_of(data, lead.arrays["row"][image]), 0.8)
    partner = dict(zip(chosen.tolist(), places.tolist(), strict=True))
    for query in range(queries):
        if query not in partner:
            _box(left, boxes[query], "#bbbbbb", "", ":", 0.9)
    for query, place in partner.items():
        colour = COLOURS[place % len(COLOURS)]
        _box(left, objects[place][0], colour, "", "-", 2.2)
        _box(left, boxes[query], colour, f"query {query}", "--", 1.3)
    for place in range(len(objects)):
        right.plot(
            place, -0.75, "s", color=COLOURS[place % len(COLOURS)], markeredgecolor="black", markersize=8, clip_on=False
        )
    right.imshow(table, cmap="viridis_r", aspect="auto")
    for query in range(queries):
        for place in range(len(objects)):
            dark = table[query, place] > np.median(table)
            cost, colour = f"{table[query, place]:.1f}".replace("-", "−"), "white" if dark else "black"
            right.text(place, query, cost, ha="center", va="center", fontsize=7.5, color=colour)
            if partner.get(query) == place:
                right.add_patch(
                    Rectangle((place - 0.47, query - 0.45), 0.94, 0.9, fill=False, edgecolor="red", linewidth=2)
                )
    right.set_xticks(range(len(objects)), [names[label] for _, label, _ in objects], fontsize=8)
    right.set_yticks(range(queries), [f"query {query}" for query in range(queries)], fontsize=7.5)
    right.set_title("matching cost\n", fontsize=8.5)
    right.grid(False)
    return figure
