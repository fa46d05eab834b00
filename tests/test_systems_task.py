"""The task of rows without training: the statement is judged, times are taken in turn, pictures are drawn."""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.layers.systems.measured import Measured, log_slope
from replications.layers.systems.timing import ROUNDS, seconds_in_turn
from replications.measurement.protocol import Effort
from replications.records import Curve
from replications.tasks.base import Look
from replications.tasks.systems_measurement import TASK, execute, pictures, skeleton
from replications.tasks.systems_measurement.rescore import identity_error, rescore


def run(row):
    built = []

    def build(name, **info):
        built.append(set(info))
        return row

    found = execute.execute(SimpleNamespace(build=build, spec=SimpleNamespace(tier="smoke")))
    assert built == [set(TASK.build)]
    return found


def test_the_statement_is_judged_and_can_be_judged_again():
    row = Measured("sums", [[1.0, 2.5]], [[1.0, 2.0]], {"spread": 3.0}, told={"not timed": "x"})
    found = run(row)
    assert found.metrics == {"spread": 3.0, "identity_error": 0.5} and found.category == "sums"
    assert found.extra == {"not timed": "x"} and rescore(found.arrays) == {"identity_error": 0.5}


def test_sides_of_other_shapes_are_no_statement():
    for found, stated in (([1.0], [1.0, 1.0]), ([], [])):
        with pytest.raises(ValueError, match="the sides of a statement have the shapes"):
            identity_error(found, stated)


def test_the_skeleton_is_a_row():
    row = skeleton.build()
    assert isinstance(row, Measured) and run(row).metrics == {"identity_error": 0.0}
    assert list(row.stated[:4]) == [1, 4, 9, 16]


def test_an_exponent_is_fitted():
    assert log_slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    with pytest.raises(ValueError, match="two points"):
        log_slope([1], [1])


def test_functions_are_timed_in_turn():
    calls = []
    found = seconds_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, Effort(1, 2, 0.0))
    assert set(found) == {"a", "b"} and all(value > 0 for value in found.values())
    turns = [name for name, before in zip(calls, ["", *calls[:-1]], strict=True) if name != before]
    assert turns == ["a", "b"] * ROUNDS


class Album:
    tier, width = "mini", 7.4
    addresses = ("a/ring", "b/fields", "c/path", "d/nothing")

    def look(self, address):
        return Look("#0072B2", "o", "solid")

    def role(self, address):
        return "method"

    def runs(self, address):
        def record(seed):
            curve = Curve(x_label="bytes", y_label="ms", x=[1e3, 1e4, 1e6], y=[1.0 + seed, 2.0, 30.0])
            return SimpleNamespace(curves={"time_ring": curve, "time_torch": curve} if address == "a/ring" else {})

        return {} if address == "d/nothing" else {seed: record(seed) for seed in (3, 4)}

    def arrays(self, address, seed):
        assert seed == 3
        draws = np.random.default_rng(0)
        if address == "b/fields":
            return {f"map_{depth}": draws.random((2 * depth + 5,) * 2).astype(np.float32) for depth in (5, 10)}
        return {"path": draws.normal(size=(9, 2)), "average": np.zeros((9, 2))} if address == "c/path" else {}


def test_each_picture_is_drawn_of_the_rows_that_have_it():
    drawn = list(pictures.draw(Album()))
    assert [picture.name for picture in drawn] == ["time", "effective_fields", "averages"]
    for picture in drawn:
        assert picture.publish
        picture.figure.draw_without_rendering()
    x, rows = pictures.times(list(Album().runs("a/ring").values()))["ring"]
    assert x == [1e3, 1e4, 1e6] and rows.tolist() == [[4.0, 2.0, 30.0], [5.0, 2.0, 30.0]]
