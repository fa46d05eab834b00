"""Logarithmic axes: round ticks, as many as there is room for, whose labels never overlap."""

import itertools
import math

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from reporting_factory import TASKS, papers, write_results

from replications.reporting import plots, report, style
from replications.tasks.log_axis import log_axis, round_values


@given(st.floats(-15, 15), st.floats(1e-4, 25), st.integers(2, 9))
def test_round_values_are_within_and_no_more_than_there_is_room_for(start, decades, most):
    low, high = 10**start, 10 ** (start + decades)
    values = round_values(low, high, most)
    assert 2 <= len(values) <= most and values == sorted(set(values))
    assert low <= values[0] and values[-1] <= high


@pytest.mark.parametrize(("low", "high", "most", "values"), [
    (4e3, 2e7, 6, [1e4, 1e5, 1e6, 1e7]),  # four decades of FLOPs: 1, 2, 5 would be eleven
    (5, 60, 5, [5, 10, 20, 50]),
    (1e-6, 1, 5, [1e-6, 1e-4, 1e-2, 1]),
    (2.1, 2.9, 6, [2.2, 2.4, 2.6, 2.8]),
    (1.4, 6.2, 9, [1.5, 2, 3, 4, 5, 6]),
])  # fmt: skip
def test_round_values(low, high, most, values):
    assert round_values(low, high, most) == values


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (2, 2), (1, math.inf), (math.nan, 1)])
def test_there_is_no_log_axis_from_nothing_to_infinity(low, high):
    with pytest.raises(ValueError, match="no log axis"):
        round_values(low, high, 5)


def overlaps(figure) -> list[tuple[str, str]]:
    """Pairs of tick labels of one axis that touch one another, in the figure as it is drawn."""
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = [
                (label.get_text(), label.get_window_extent())
                for tick in axis.get_major_ticks() + axis.get_minor_ticks()
                if (label := tick.label1).get_visible() and label.get_text()
                and axis.get_view_interval().min() <= tick.get_loc() <= axis.get_view_interval().max()
            ]  # fmt: skip
            found += [(a, b) for (a, x), (b, y) in itertools.combinations(shown, 2) if x.overlaps(y)]
    return found


@pytest.mark.parametrize("decades", [0.02, 0.3, 0.8, 1.5, 3, 4.2, 7, 13])
@pytest.mark.parametrize("width", [1.6, 3, 7])
@pytest.mark.parametrize("label", [EngFormatter(), lambda x, _: f"{x:g}", lambda x, _: f"{100 * x:,g} %"])
def test_labels_do_not_overlap(decades, width, label):
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(width, 2.0), layout="constrained")
        axes = figure.subplots()
        axes.plot([3e2, 3e2 * 10**decades], [2e-3, 2e-3 * 10**decades])
        log_axis(axes.xaxis, label)
        log_axis(axes.yaxis, label)
        assert overlaps(figure) == []
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert len(axes.get_xticks()) >= (2 if width > 2 else 1)


@pytest.mark.parametrize("decades", [0.1, 1, 4, 9])
def test_quality_against_flops_of_many_decades(tmp_path, decades):
    write_results(tmp_path / "mini", seeds=2, pairs=60)
    board = report.derive(tmp_path / "mini", "mini", papers(), tasks=TASKS)[1][0]
    rows = [row for row in board.rows if row.cost]
    for place, row in enumerate(rows):
        row.cost.flops_per_sample = row.cost.train_seconds = 4e3 * 10 ** (decades * place / (len(rows) - 1))
        row.metrics["accuracy"] = row.metrics["accuracy"].model_copy(
            update={"mean": 100 - 10 ** (1.9 - decades * place / len(rows)), "half_width": None}
        )
    with matplotlib.rc_context(style.RC):
        assert overlaps(plots.cost_plot(board)) == []


def test_a_long_title_leaves_room_for_the_curves(tmp_path):
    """A set-up changed in many places is named in the title: longer than a page is wide."""
    write_results(tmp_path / "mini", seeds=2, pairs=60)
    records, (board,), _, _ = report.derive(tmp_path / "mini", "mini", papers(), tasks=TASKS)
    for row in board.rows:
        row.category = f"{row.category} · changed set-up: " + ", ".join(f"recipe.value_{n}={n}" for n in range(40))
    with matplotlib.rc_context(style.RC):
        figure = plots.score_curves(board, records, "roc")
        figure.draw_without_rendering()
    box = figure.axes[0].get_window_extent()
    assert box.width > 0.4 * figure.bbox.width and box.height > 0.6 * figure.bbox.height / len(figure.axes)
