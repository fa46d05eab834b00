"""Pictures of 3-D detection: rooms from above and in perspective, the gain against the distance to the centre, and
precision-recall curves by class."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from replications.layers.rooms.boxes import corners, footprints
from replications.tasks.base import Album, Picture
from replications.tasks.detection_3d.evaluation import evaluate_class, overlaps
from replications.tasks.detection_3d.rescore import unpack

SHOWN_SCORE = 0.3  # detections below it are left out of the rooms
TRUE, FOUND, POINT, SEED, VOTE = "#000000", "#D55E00", "#C4C4C4", "#0072B2", "#009E73"
EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
ROOMS = 2
GREY = "#555555"

Arrays = Mapping[str, Any]


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures: rooms of the first method with votes, the gain over the first baseline, the curves."""
    voting = next((a for a in album.addresses if album.role(a) == "method" and _votes(album, a)), None)
    baseline = next((a for a in album.addresses if album.role(a) == "baseline" and album.runs(a)), None)
    if voting:
        seed = min(album.runs(voting))
        yield Picture(
            "rooms",
            lambda: rooms(album.arrays(voting, seed), album.width),
            "Test scenes from above and in perspective: points, seeds on objects, votes, true and found boxes.",
            f"Test scenes, {voting}, seed {seed}. Grey: points. Blue: seeds on objects; green: their votes. "
            f"Black: true boxes, of whole objects. Orange: detections that score above {SHOWN_SCORE:g}.",
        )
    if voting and baseline:
        yield Picture(
            "gain",
            lambda: gain(album, voting, baseline),
            "Gain of voting in AP@0.25 by class, against the distance of the class's centres to the nearest point.",
            f"AP@0.25 of {voting} less that of {baseline}, by class: mean over the common seeds, bars from the "
            "least to the greatest seed. The line is the least-squares fit of the means.",
            publish=True,
        )
    yield Picture(
        "precision_recall",
        lambda: class_curves(album, [a for a in (voting, baseline) if a]),
        "Precision against recall at IoU 0.25 for each class, one panel per class.",
        "Precision against recall, IoU above 0.25, by class; lowest seed. In brackets: average precision.",
        publish=True,
    )


def _votes(album: Album, address: str) -> bool:
    return any("vote_distance_after" in record.metrics for record in album.runs(address).values())


def rooms(arrays: Arrays, width: float) -> Figure | None:
    """A row a scene: from above on the left, in perspective on the right."""
    count = min(ROOMS, len(arrays.get("shown_points", ())))
    if not count:
        return None
    figure = Figure(figsize=(width, 3.6 * count + 0.4), layout="constrained")
    for s in range(count):
        scene = {
            "points": arrays["shown_points"][s].astype(float),
            "seeds": arrays["shown_seeds"][s].astype(float)[arrays["shown_on_object"][s]],
            "votes": arrays["shown_votes"][s].astype(float)[arrays["shown_on_object"][s]],
            "true": [(box.astype(float), label) for box, label in _objects(arrays, s)],
            "found": [(box.astype(float), label) for box, label in _detections(arrays, s)],
        }
        _from_above(figure.add_subplot(count, 2, 2 * s + 1), scene, list(arrays["classes"]))
        _perspective(figure.add_subplot(count, 2, 2 * s + 2, projection="3d"), scene)
    handles = [
        Line2D([], [], color=TRUE, linewidth=1.2, label="true box"),
        Line2D([], [], color=FOUND, linewidth=1.2, linestyle=(0, (4, 1.5)), label="detection"),
        *(
            Line2D([], [], color=c, marker="o", markersize=3.5, linestyle="", label=name)
            for c, name in ((POINT, "point"), (SEED, "seed on an object"), (VOTE, "its vote"))
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def _objects(arrays: Arrays, s: int) -> Iterator[tuple[np.ndarray, int]]:
    for box, label in zip(arrays["true_boxes"][s], arrays["true_label"][s], strict=True):
        if label >= 0:
            yield box, int(label)


def _detections(arrays: Arrays, s: int) -> Iterator[tuple[np.ndarray, int]]:
    own = arrays["detected_scene"] == s
    for box, scores in zip(arrays["detected_boxes"][own], arrays["detected_scores"][own], strict=True):
        if scores.max() > SHOWN_SCORE:
            yield box, int(scores.argmax())


def _from_above(axes, scene: dict[str, Any], classes: list[str]) -> None:
    axes.scatter(*scene["points"][:, :2].T, s=1.5, color=POINT, linewidths=0, zorder=1)
    segments = np.stack([scene["seeds"][:, :2], scene["votes"][:, :2]], axis=1)
    axes.add_collection(LineCollection(segments, colors=VOTE, linewidths=0.35, alpha=0.5, zorder=2))
    axes.scatter(*scene["seeds"][:, :2].T, s=5, color=SEED, linewidths=0, zorder=3)
    axes.scatter(*scene["votes"][:, :2].T, s=5, color=VOTE, linewidths=0, zorder=4)
    for kind, colour, dash in (("true", TRUE, "solid"), ("found", FOUND, (0, (4, 1.5)))):
        for box, label in scene[kind]:
            outline = footprints(box)
            axes.plot(*np.vstack([outline, outline[:1]]).T, color=colour, linestyle=dash, linewidth=1.1, zorder=5)
            if kind == "true":
                axes.annotate(
                    classes[label], outline[outline[:, 1].argmax()], (0, 2), textcoords="offset points", fontsize=6.5,
                    ha="center", va="bottom", zorder=7,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
                )  # fmt: skip
    axes.set(aspect="equal", xlabel="x (m)", ylabel="y (m), away from the camera")


def _perspective(axes, scene: dict[str, Any]) -> None:
    axes.scatter(*scene["points"].T, s=1, color=POINT, linewidths=0)
    axes.scatter(*scene["seeds"].T, s=4, color=SEED, linewidths=0)
    axes.scatter(*scene["votes"].T, s=4, color=VOTE, linewidths=0)
    for kind, colour, dash in (("true", TRUE, "solid"), ("found", FOUND, (0, (4, 1.5)))):
        for box, _ in scene[kind]:
            eight = corners(box)
            for a, b in EDGES:
                axes.plot(*eight[[a, b]].T, color=colour, linestyle=dash, linewidth=0.9)
    low, high = scene["points"].min(0), scene["points"].max(0)
    axes.set_box_aspect(np.maximum(high - low, 0.5), zoom=1.25)
    axes.view_init(elev=38, azim=-75)
    axes.set_axis_off()


def gain(album: Album, address: str, other: str) -> Figure | None:
    """Per-class gain against the class's distance, with its correlation; of seeds that both have."""
    seeds = sorted(set(album.runs(address)) & set(album.runs(other)))
    if not seeds:
        return None
    tables = [[_by_class(album.runs(a)[seed]) for seed in seeds] for a in (address, other)]
    names = [name for name in tables[0][0] if all(name in table for of in tables for table in of)]
    x = np.array([tables[0][0][name]["distance"] for name in names])
    y = np.array([[ours[n]["ap25"] - theirs[n]["ap25"] for n in names] for ours, theirs in zip(*tables, strict=True)])
    figure = Figure(figsize=(album.width * 0.72, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=0.8)
    mean = y.mean(0)
    axes.errorbar(
        x, mean, yerr=[mean - y.min(0), y.max(0) - mean], fmt="o", color=album.look(address).colour, elinewidth=0.9,
        capsize=2,
    )  # fmt: skip
    if len(x) > 2 and np.ptp(x) > 0:
        slope, start = np.polyfit(x, mean, 1)
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, start + slope * ends, color=album.look(address).colour, linewidth=1, linestyle=(0, (4, 2)))
        r = np.corrcoef(x, mean)[0, 1] if np.ptp(mean) > 0 else 0.0
        axes.set_title(f"correlation by class {r:+.2f}, {len(names)} classes, {len(seeds)} seeds".replace("-", "−"))
    for place, name in enumerate(names):
        axes.annotate(
            name.replace("_", " "),
            (x[place], mean[place]),
            (5, 4),
            textcoords="offset points",
            fontsize=7.5,
            color=GREY,
        )
    axes.margins(x=0.12, y=0.1)
    axes.set(
        xlabel="Centre to the nearest point of the object, mean of the class (m)", ylabel="Gain in AP@0.25 (points)"
    )
    return figure


def _by_class(record) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in record.extra["classes"]}


def class_curves(album: Album, addresses: list[str]) -> Figure | None:
    """A panel a class: precision against recall of each method's lowest seed."""
    arrays = {address: album.arrays(address, min(album.runs(address))) for address in addresses}
    arrays = {address: of for address, of in arrays.items() if of}
    if not arrays:
        return None
    classes = [str(name) for name in next(iter(arrays.values()))["classes"]]
    columns = min(4, len(classes))
    rows = -(-len(classes) // columns)
    figure = Figure(figsize=(album.width, 0.6 + 2.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    handles = {}
    for address, of in arrays.items():
        detections, truth = unpack(of)
        iou, look = overlaps(detections, truth), album.look(address)
        for label, (name, axes) in enumerate(zip(classes, grid[: len(classes)], strict=True)):
            result = evaluate_class(iou, detections, truth, label, 0.25)
            axes.set_title(name.replace("_", " "))
            if result is None:
                continue
            envelope = np.maximum.accumulate(result.precision[::-1])[::-1]
            x, y = np.append([0.0], result.recall), np.append(envelope[:1], envelope)
            text = f"[{100 * result.average_precision:.1f}]"
            handles[address] = axes.plot(x, y, color=look.colour, linestyle=look.dash, drawstyle="steps-pre")[0]
            axes.text(
                0.97, 0.95 - 0.11 * list(arrays).index(address), text, color=look.colour, ha="right", va="top",
                transform=axes.transAxes, fontsize=7.5,
            )  # fmt: skip
    for axes in grid[len(classes) :]:
        axes.axis("off")
    grid[0].set(xlim=(0, 1), ylim=(0, 1.02))
    figure.supxlabel("Recall", fontsize=8.5)
    figure.supylabel("Precision", fontsize=8.5)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles))
    return figure
