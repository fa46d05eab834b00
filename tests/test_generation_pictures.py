"""The pictures of image generation, drawn from made-up arrays and read back."""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.tasks.base import Look
from replications.tasks.image_generation.pictures import draw

METRICS = {"frechet": 3.0, "frechet_raw": 4.0, "frechet_eta0_5": 8.0, "frechet_eta0_10": 6.0, "frechet_eta1_10": 9.0}


class Drawn:
    """An album of two rows of 2x3 pixels; the second has one sampler and no way from noise to image."""

    tier, width = "mini", 7.0
    addresses = ("slow/chain", "fast/once")

    def runs(self, address):
        metrics = METRICS if address == "slow/chain" else {"frechet": 2.0}
        other = {name: value + 2 for name, value in metrics.items()}
        extra = {"shape": [2, 3]}
        return {4: SimpleNamespace(metrics=other, extra=extra), 3: SimpleNamespace(metrics=metrics, extra=extra)}

    def look(self, address):
        return Look("#000000", "o", "-")

    def arrays(self, address, seed):
        assert seed == 3
        count = 40 if address == "slow/chain" else 5
        found = {"shown": np.arange(count, dtype=np.uint8)[:, None] * np.ones(6, np.uint8)}
        if address == "slow/chain":
            found["strip"] = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 6), np.uint8)
        return found


@pytest.fixture(scope="module")
def figures():
    return {picture.name: picture.figure for picture in draw(Drawn())}


def test_images_are_in_the_order_of_their_noise(figures):
    assert list(figures) == ["shown", "strip", "steps"]
    many, few = (axes.images[0].get_array() for axes in figures["shown"].axes)
    assert many.shape == (2 * 4, 16 * 5) and few.shape == (4, 5 * 5)  # each image has a frame of one pixel
    assert many[5, 1::5].tolist() == list(range(16, 32)) and few[1, 1::5].tolist() == list(range(5))


def test_time_goes_to_the_right(figures):
    (axes,) = figures["strip"].axes
    sheet = axes.images[0].get_array()
    assert sheet.shape == (3 * 4, 4 * 5) and sheet[1, 1::5].tolist() == [0, 1, 2, 3] == sheet[9, 1::5].tolist()


def test_distances_are_means_over_seeds(figures):
    first, second = figures["steps"].axes[0].lines
    assert first.get_xdata().tolist() == [5, 10] and first.get_ydata().tolist() == [9, 7]
    assert second.get_xdata().tolist() == [10] and second.get_ydata().tolist() == [10]
    assert first.get_label() == "slow/chain, eta0" and second.get_markerfacecolor() == "none"
