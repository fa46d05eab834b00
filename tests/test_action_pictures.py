"""The pictures of online actions, drawn from made-up records and read back."""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.tasks.base import Look
from replications.tasks.online_action.pictures import FRAMES, draw, stacked, stretch


class Drawn:
    """An album of two rows; the second tells only the action now."""

    tier, width = "mini", 7.0
    addresses = ("one/ahead", "two/now", "three/nothing")

    def runs(self, address):
        if address == "three/nothing":
            return {}
        y = [50.0, 40.0, 30.0] if address == "one/ahead" else [60.0]
        extra = {"classes": ["background", "jump", "run"]}
        runs = [
            SimpleNamespace(curves={"ahead": SimpleNamespace(x=list(range(len(y))), y=[v + d for v in y])}, extra=extra)
            for d in (0, 2)
        ]
        return {7: runs[1], 4: runs[0]}

    def look(self, address):
        return Look("#000000", "o", "-")

    def arrays(self, address, seed):
        assert seed == 4
        target = np.zeros((10, 2), np.uint8)
        target[6:9, 1] = 1
        told = np.log(np.where(target, 0.75, 0.01))[:, None]
        return {"target": target, "scores": told.astype(np.float16), "bounds": np.array([0, 4, 10])}


@pytest.fixture(scope="module")
def figures():
    return {picture.name: picture.figure for picture in draw(Drawn())}


def test_map_is_the_mean_over_seeds(figures):
    first, second = figures["ahead"].axes[0].lines
    assert list(first.get_xdata()) == [0, 1, 2] and first.get_ydata().tolist() == [51, 41, 31]
    assert list(second.get_xdata()) == [0] and second.get_ydata().tolist() == [61] and second.get_label() == "two/now"


def test_the_stream_shown_is_the_first_with_an_action(figures):
    truth, one, two = figures["stream"].axes
    assert [axes.get_ylabel() for axes in (truth, one, two)] == ["truth", "one/ahead", "two/now"]
    image = truth.images[0].get_array()
    assert image.shape[1] == 6  # frames 4 to 9; from 2 on the action
    assert [bool((image[:, frame] < 1).any()) for frame in range(6)] == [False, False, True, True, True, False]
    coloured = (one.images[0].get_array()[:, 2] < 1).any(1).mean()
    assert coloured == pytest.approx(0.76, abs=0.03)
    assert [text.get_text() for text in figures["stream"].legends[0].get_texts()] == ["jump", "run"]


def test_a_long_stream_is_shown_from_a_little_before_its_first_action():
    target = np.zeros((1000, 1), np.uint8)
    target[500:600] = 1
    assert stretch(target, np.array([0, 1000])) == slice(492, 492 + FRAMES)
    target[:] = 0
    target[990:] = 1
    assert stretch(target, np.array([0, 1000])) == slice(1000 - FRAMES, 1000)


def test_shares_are_stacked_from_below():
    colours = np.array([[1.0, 0, 0], [0, 1, 0]])
    image = stacked(np.array([[0.25, 0.5], [1.0, 1.0]]), colours)
    assert (
        (image[-12:, 0] == colours[0]).all() and (image[-36:-12, 0] == colours[1]).all() and (image[:12, 0] == 1).all()
    )
    assert (image[-24:, 1] == colours[0]).all() and (image[:24, 1] == colours[1]).all()  # more than 1 is scaled down
