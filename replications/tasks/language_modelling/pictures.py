"""Pictures of language modelling: cost against length, quality against time, attention maps."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from replications.measurement.sweep import Crossover, crossover, fit_power_law
from replications.records import RunRecord
from replications.tasks.base import Album, Look, Picture
from replications.tasks.log_axis import log_axis

REFERENCES = {"sdpa": "softmax, fused", "naive": "softmax, materialised"}
REFERENCE_LOOKS = {"sdpa": Look("#000000", "x", (0, (4, 1.5))), "naive": Look("#7F7F7F", "+", (0, (1.2, 1.2)))}
QUANTITIES = {  # of a sweep's points: title, unit, factor, per position
    "seconds": ("Training step", "microseconds a byte", 1e6, True),
    "bytes": ("Memory of a training step", "MiB", 2.0**-20, False),
    "token_seconds": ("Decoding, 8 sequences at once", "milliseconds a token", 1e3, False),
}
MAPS_A_ROW = 5

Points = Mapping[str, Mapping[str, Mapping[str, float | None]]]  # model -> length -> quantity -> value


def draw(album: Album) -> Iterator[Picture]:
    """Yield the pictures that the records give something for."""
    runs = {address: list(album.runs(address).values()) for address in album.addresses}
    swept = {
        address: found
        for address in album.addresses
        if album.role(address) == "method" and (found := mean_costs(runs[address]))
    }
    if swept:
        yield Picture(
            "length",
            lambda: length_figure(swept, {address: album.look(address) for address in swept}, album.width),
            "Cost of a training step and of decoding against length, and the lengths where costs meet, with "
            "intervals; exponents are in the legends.",
            "What length costs, means over seeds on log axes, with the exponent p of cost ~ length^p and its 95 % "
            "interval. A step is of one sequence on the device of the records. Below on the right: from which length "
            "on a method is faster than softmax attention of equal size, with Fieller's 95 % interval; an arrow where "
            "it has no end.",
            publish=True,
        )
    timed = {address: found for address in album.addresses if (found := [r for r in runs[address] if _curve(r)])}
    if timed:
        yield Picture(
            "time",
            lambda: time_figure(timed, album, album.width),
            "Bits per byte of the validation text against seconds of training, and those of the test text after equal "
            "steps and after equal time.",
            "Left: quality while training, against the seconds that the steps took (mean over seeds); the learning "
            "rate falls to zero at each line's end. Thin lines are ablations. Right: test text, trained for equal "
            "steps (filled) and anew for equal seconds with a schedule of that length (open), with 95 % intervals.",
            publish=True,
        )
    maps = {a: found["attention"] for a in album.addresses if "attention" in (found := album.arrays(a, 0))}
    if maps:
        yield Picture(
            "attention",
            lambda: attention_figure({address: layers[-1] for address, layers in maps.items()}, album.width),
            "What each position takes from those before it, one panel per method.",
            "Weights of the last layer on the first bytes of the test text (seed 0, mean over heads, a row per query). "
            "Each row is drawn relative to its largest weight, without signs; the shade is its square root.",
            publish=True,
        )


# Cost against length


def mean_costs(records: Sequence[RunRecord]) -> dict[str, dict[str, dict[int, float]]]:
    """Return ``model -> quantity -> length -> geometric mean over the records`` of what all of them measured."""
    sweeps: list[Points] = [record.extra["sweep"]["points"] for record in records if "sweep" in record.extra]
    found: dict[str, dict[str, dict[int, float]]] = {}
    for model in sweeps[0] if sweeps else ():
        for length in sweeps[0][model]:
            for quantity in QUANTITIES:
                values = [points[model].get(length, {}).get(quantity) for points in sweeps]
                if all(values):
                    mean = statistics.geometric_mean(values)
                    found.setdefault(model, {}).setdefault(quantity, {})[int(length)] = mean
    return found


def length_figure(swept: Mapping[str, dict], looks: Mapping[str, Look], width: float) -> Figure:
    """Draw the three quantities against length and the crossovers. `swept` is `mean_costs` by address."""
    figure = Figure(figsize=(width, 0.95 * width), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for axes, (quantity, (title, unit, factor, per_position)) in zip(panels[:3], QUANTITIES.items(), strict=True):
        lines = {address: (costs["method"], looks[address]) for address, costs in swept.items()}
        if quantity != "token_seconds":
            lines |= {REFERENCES[name]: (costs, REFERENCE_LOOKS[name]) for name, costs in references(swept).items()}
        for label, (costs, look) in lines.items():
            if len(costs.get(quantity, {})) > 2:
                _draw_law(axes, label, costs[quantity], look, factor, per_position)
        axes.set(xscale="log", yscale="log", title=title, xlabel="length, bytes", ylabel=unit)
        _mark_lengths(axes, sorted({n for costs, _ in lines.values() for n in costs.get(quantity, {})}))
        axes.legend(fontsize=6.5, handlelength=2.2, loc="upper left", labelspacing=0.35)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.62)  # room for the legend
    _draw_crossovers(panels[3], swept, looks)
    return figure


def references(swept: Mapping[str, dict]) -> dict[str, dict[str, dict[int, float]]]:
    """Return the references' costs, measured again with each method: geometric means over methods."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for name in REFERENCES:
        for quantity in QUANTITIES:
            measured = [costs.get(name, {}).get(quantity, {}) for costs in swept.values()]
            lengths = set.intersection(*map(set, measured))
            if lengths:
                means = {n: statistics.geometric_mean(m[n] for m in measured) for n in sorted(lengths)}
                found.setdefault(name, {})[quantity] = means
    return found


def _draw_law(
    axes: Axes, label: str, costs: Mapping[int, float], look: Look, factor: float, per_position: bool
) -> None:
    lengths = np.array(sorted(costs))
    fit = fit_power_law(lengths, [costs[n] for n in lengths])
    per = lengths if per_position else 1
    x = np.geomspace(lengths[0], lengths[-1], 50)
    law = fit.scale * x**fit.exponent * factor / (x if per_position else 1)
    axes.plot(x, law, color=look.colour, linestyle=look.dash, linewidth=1.2)
    exponent = f"p = {fit.exponent:z.2f} [{fit.low:z.2f}, {fit.high:z.2f}]".replace("-", "−")
    axes.plot(
        lengths, np.array([costs[n] for n in lengths]) * factor / per,
        color=look.colour, marker=look.marker, linestyle="none", markersize=5, label=f"{label}\n{exponent}",
    )  # fmt: skip


def _mark_lengths(axes: Axes, lengths: Sequence[int]) -> None:
    shown = lengths[:: -(-len(lengths) // 8)] if lengths else ()
    axes.set_xticks(shown, [f"{n // 1024}k" if n % 1024 == 0 else str(n) for n in shown])
    axes.minorticks_off()
    log_axis(axes.yaxis)


def crossovers(costs: Mapping[str, dict]) -> dict[str, Crossover | None]:
    """Return by reference the length of equal step cost, or None if the fits do not determine it."""
    own, found = costs["method"].get("seconds", {}), {}
    for name in REFERENCES:
        other = costs.get(name, {}).get("seconds", {})
        lengths = sorted(set(own) & set(other))
        if len(lengths) > 2:
            found[name] = crossover(lengths, [own[n] for n in lengths], [other[n] for n in lengths])
    return found


def _draw_crossovers(axes: Axes, swept: Mapping[str, dict], looks: Mapping[str, Look]) -> None:
    """A row for each method and reference: the crossover and its interval, on the measured lengths' log axis."""
    lengths = sorted({n for costs in swept.values() for n in costs["method"].get("seconds", {})})
    low, high = lengths[0] / 16, lengths[-1] * 4
    labels = []
    for address, costs in swept.items():
        for name, meeting in crossovers(costs).items():
            place, look = -len(labels), looks[address]
            labels.append(f"{address.partition('/')[2]}\n{REFERENCES[name]}")
            if meeting is None or not low < meeting.size < high:
                text = _all_along(costs["method"]["seconds"], costs[name]["seconds"])
                axes.text(math.sqrt(low * high), place, text, ha="center", va="center", fontsize=7, color="#555555")
                continue
            left, right = max(meeting.low, low), min(meeting.high, high)
            axes.plot([left, right], [place, place], color=look.colour, linewidth=1.6)
            for end, value, marker in ((low, meeting.low, "<"), (high, meeting.high, ">")):
                if (value < end) if end == low else (value > end):
                    axes.plot(end, place, marker=marker, color=look.colour, markersize=5, clip_on=False)
            axes.plot(meeting.size, place, marker=look.marker, color=look.colour, markersize=6)
            axes.text(meeting.size, place + 0.18, f"{meeting.size:,.0f}", ha="center", va="bottom", fontsize=7)
    axes.axvspan(lengths[0], lengths[-1], color="#F2F2F2", zorder=0)
    axes.set(xscale="log", xlim=(low, high), ylim=(0.6 - len(labels), 0.7), title="Costs meet at")
    axes.set_xlabel("length, bytes (shaded: measured)")
    axes.set_yticks([-place for place in range(len(labels))], labels, fontsize=6.5)
    ticks = [2.0**e for e in range(4, 20, 2) if low <= 2.0**e <= high]
    axes.set_xticks(ticks, [f"{n / 1024:g}k" if n >= 1024 else f"{n:g}" for n in ticks])
    axes.minorticks_off()


def _all_along(own: Mapping[int, float], other: Mapping[int, float]) -> str:
    faster = {own[n] < other[n] for n in other if n in own}
    if len(faster) == 1:
        return f"{'faster' if faster.pop() else 'slower'} at every length measured"
    return "no telling"


# Quality against time


def _curve(record: RunRecord) -> Mapping[str, list[float]] | None:
    found = record.extra.get("validation", {})
    return found if len(found.get("seconds", [])) > 1 else None


def time_figure(timed: Mapping[str, Sequence[RunRecord]], album: Album, width: float) -> Figure:
    """Draw validation quality against training seconds, and test quality after equal steps and equal time."""
    figure = Figure(figsize=(width, 0.3 * len(timed) + 1.6), layout="constrained")
    curves, dots = figure.subplots(1, 2, width_ratios=(1.15, 1))
    for address, records in timed.items():
        look, main = album.look(address), album.role(address) != "ablation"
        points = [_curve(record) for record in records]
        seconds, bits = (np.mean([p[key] for p in points], axis=0) for key in ("seconds", "bits_per_byte"))
        curves.plot(
            seconds, bits, color=look.colour, linestyle=look.dash, marker=look.marker if main else None,
            markersize=3.5, linewidth=1.6 if main else 0.8, alpha=1 if main else 0.6,
            label=address.partition("/")[2] if main else None,
        )  # fmt: skip
    curves.legend(fontsize=7, loc="upper right", handlelength=3)
    curves.set(xlabel="seconds of training", ylabel="bits per byte, validation", title="While training")
    for place, (address, records) in enumerate(timed.items()):
        look = album.look(address)
        for metric, shift, fill in (("bits_per_byte", 0.16, look.colour), ("bits_per_byte_equal_time", -0.16, "white")):
            values = [record.metrics[metric] for record in records if metric in record.metrics]
            if values:
                _draw_mean(dots, values, -place + shift, look, fill)
    dots.set_yticks([-place for place in range(len(timed))], [a.partition("/")[2] for a in timed], fontsize=7)
    dots.set(xlabel="bits per byte, test", title="Equal steps (filled), equal time (open)")
    dots.set_ylim(0.6 - len(timed), 0.6)
    return figure


def _draw_mean(axes: Axes, values: Sequence[float], place: float, look: Look, fill: str) -> None:
    from scipy.special import stdtrit

    mean = statistics.fmean(values)
    if len(values) > 1:
        half = stdtrit(len(values) - 1, 0.975) * statistics.stdev(values) / math.sqrt(len(values))
        axes.plot([mean - half, mean + half], [place, place], color=look.colour, linewidth=1.1)
    axes.plot(mean, place, marker=look.marker, color=look.colour, markerfacecolor=fill, markersize=4.5)


# Attention


def attention_figure(maps: Mapping[str, np.ndarray], width: float) -> Figure:
    """Draw weights ``[n, n]`` (a row per query), relative to the largest of each row."""
    rows = math.ceil(len(maps) / MAPS_A_ROW)
    figure = Figure(figsize=(width, rows * (width / MAPS_A_ROW + 0.32)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, MAPS_A_ROW)).ravel()
    for axes in panels[len(maps) :]:
        axes.axis("off")
    for axes, (address, weights) in zip(panels[: len(maps)], maps.items(), strict=True):
        size = np.abs(weights.astype(np.float32))
        relative = size / np.maximum(size.max(axis=1, keepdims=True), 1e-12)
        axes.imshow(relative, cmap="magma_r", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
        axes.grid(False)
        n = len(weights)
        axes.set_xticks([0, n // 2, n - 1])
        axes.set_yticks([0, n // 2, n - 1])
        axes.tick_params(labelsize=6, length=2)
        axes.set_title(address.replace("/", "/\n"), fontsize=6.5, fontweight="normal")
    panels[0].set_ylabel("query", fontsize=7)
    panels[0].set_xlabel("key", fontsize=7)
    return figure
