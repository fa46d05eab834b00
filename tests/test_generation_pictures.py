"""The pictures of image generation, drawn from made-up arrays and read back."""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.tasks.base import Look
from replications.tasks.image_generation.pictures import draw, spectrum

METRICS = {"frechet": 3.0, "frechet_raw": 4.0, "frechet_eta0_5": 8.0, "frechet_eta0_10": 6.0, "frechet_eta1_10": 9.0}


class Drawn:
    """An album of two rows of 2x3 pixels; the second has one sampler and no way from noise to image."""

    tier, width = "mini", 7.0
    addresses = ("slow/chain", "fast/once")

    def runs(self, address):
        metrics = METRICS if address == "slow/chain" else {"frechet": 2.0}
        other = {name: value + 2 for name, value in metrics.items()}
        about = SimpleNamespace(extra={"shape": [2, 3]}, spec=SimpleNamespace(data={"images": "drawn"}))
        return {seed: SimpleNamespace(metrics=of, **vars(about)) for seed, of in ((4, other), (3, metrics))}

    def look(self, address):
        return Look("#000000", "o", "-")

    def kind(self, key):
        assert key == "drawn"
        return "embedded"

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


class Further(Drawn):
    """Both rows have all that a method may have; the images of ``fast/once`` repeat every two pixels."""

    set_kind = "embedded"

    def kind(self, key):
        return self.set_kind

    def runs(self, address):
        found = super().runs(address)
        return {seed: SimpleNamespace(**vars(run) | {"metrics": {"pair_share": 0.5}}) for seed, run in found.items()}

    def arrays(self, address, seed):
        ramp = np.arange(36, dtype=np.uint8)
        flat, striped = np.array([0, 3, 6, 0, 3, 6]), np.array([0, 255, 0, 255, 0, 255])
        images = np.array([flat if address == "slow/chain" else striped], np.uint8)
        return {
            "between": ramp.reshape(2, 3, 6),
            "pairs": np.tile(np.arange(20, dtype=np.uint8)[None, :, None], (2, 1, 6)),
            "codes": np.tile(np.arange(1, 20, dtype=np.uint8)[:, None], (1, 6)),
            "samples": images,
            "reference": np.zeros((1, 6), np.uint8),
        }


def test_ways_pairs_and_codes_are_sheets_of_each_method():
    pictures = {picture.name: picture for picture in draw(Further())}
    assert set(pictures) == {"between", "pairs", "codes", "spectra"} and all(p.publish for p in pictures.values())
    sheets = {name: pictures[name].figure.axes[0].images[0].get_array() for name in ("between", "pairs", "codes")}
    assert sheets["between"].shape == (2 * 4, 3 * 5) and sheets["between"][1, 1:4].tolist() == [0, 1, 2]
    assert sheets["between"][5, 11:14].tolist() == [30, 31, 32]
    assert sheets["pairs"][1, 1::5].tolist() == list(range(16)) == sheets["pairs"][5, 1::5].tolist()
    assert sheets["codes"].shape == (2 * 4, 16 * 5) and sheets["codes"][5, 1::5].tolist() == [17, 18, 19] + 13 * [0]


def test_test_images_of_a_public_set_stay_here():
    album = Further()
    album.set_kind = "public"
    assert {picture.name: picture.publish for picture in draw(album)} == {
        "between": True,
        "pairs": False,
        "codes": True,
        "spectra": True,
    }


def test_a_pattern_of_two_columns_is_at_the_right_end():
    """2 rows of 4 columns in turn -1 and 1: all energy, (4 * 1)^2, at two periods."""
    images = np.tile(np.array([0, 255, 0, 255], np.uint8), (5, 2, 1))
    assert spectrum(images) == pytest.approx([0, 0, 16])
