"""Pictures of gradient estimation: what they take from records, and that each is drawn."""

import io
from types import SimpleNamespace

import numpy as np
import pytest

from replications.tasks.base import Look
from replications.tasks.gradient_estimation import pictures


def record(seed, address="relaxed"):
    metrics = {f"variance_dim{d}": (1 + seed) * d**2 for d in (1, 10, 100)} | {"evaluations": 1.0}
    if address == "gaussian":
        return SimpleNamespace(metrics=metrics, history=[])
    metrics |= {"bias": 0.3, "variance": 2.0}
    if address == "relaxed":
        metrics |= {f"bias_tau{t}": b for t, b in (("10", 0.9), ("0p1", 0.1), ("2", 0.5))}
        metrics |= {f"variance_tau{t}": b for t, b in (("10", 0.01), ("0p1", 30), ("2", 0.5))}
        metrics |= {f"bias_error_tau{t}": 0.01 for t in ("10", "0p1", "2")}
    steps = (100, 200, 300) if seed else (100, 200)
    point = [SimpleNamespace(stage="train", step=s, values={"nelbo": 30 - s / 100 + seed}) for s in steps]
    other = [SimpleNamespace(stage="checkpoint", step=100, values={"nelbo": 99.0})]
    return SimpleNamespace(metrics=metrics, history=other + point)


class Album:
    tier, width = "mini", 7.4
    addresses = ("relaxed", "plain", "gaussian", "missing")

    def look(self, address):
        return Look("#0072B2", "o", "solid")

    def runs(self, address):
        return {} if address == "missing" else {seed: record(seed, address) for seed in range(2)}


def test_figures_are_by_rising_number():
    found = pictures.by_number(Album().runs("relaxed"), "bias", "tau")
    assert list(found) == [0.1, 2.0, 10.0] and found[0.1] == pytest.approx([0.1, 0.1])
    dims = pictures.by_number(Album().runs("gaussian"), "variance", "dim")
    assert list(dims) == [1, 10, 100] and dims[10].tolist() == [100, 200]


def test_bounds_are_those_of_the_training_at_the_steps_that_all_seeds_have():
    steps, values = pictures.bounds(Album().runs("plain"))
    assert steps.tolist() == [100, 200]
    np.testing.assert_allclose(values, [[29, 28], [30, 29]])
    assert not pictures.bounds(Album().runs("gaussian"))[0].size


def test_each_picture_is_drawn_of_what_there_is():
    found = list(pictures.draw(Album()))
    assert [p.name for p in found] == ["bias_and_variance", "variance_by_dimension", "training"]
    for picture in found:
        picture.figure.savefig(io.BytesIO(), format="svg")
    bias, dimension, training = (p.figure.axes[0] for p in found)
    assert bias.lines[0].get_xdata() == pytest.approx([30, 0.5, 0.01])
    assert bias.lines[1].get_ydata() == pytest.approx([0.3])
    assert dimension.lines[0].get_ydata() == pytest.approx(np.sqrt(2) * np.array([1, 100, 10_000]))
    assert [line.get_label() for line in training.lines] == ["relaxed", "plain"]


def test_nothing_is_drawn_of_nothing():
    album = Album()
    album.addresses = ("missing",)
    assert not list(pictures.draw(album))
