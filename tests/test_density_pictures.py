"""The pictures of density estimation, drawn from made-up arrays and read back."""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.tasks.base import Look
from replications.tasks.density_estimation.pictures import _masks, draw

METRICS = {"elbo": -20.26, "bound_5": -20.01, "bound_50": -19.92, "bound_500": -19.9, "grid_log_prob": -19.89}


class Drawn:
    """An album of two rows: MADE of 2x2 pixels with one hidden layer, and a model of two latents."""

    tier, width = "mini", 7.0
    addresses = ("made/made", "vae/vae_2")

    def runs(self, address):
        metrics = METRICS if address == "vae/vae_2" else {"nll": 17.5}
        return {3: SimpleNamespace(metrics=metrics, extra={"shape": [2, 2]})}

    def look(self, address):
        return Look("#000000", "o", "-")

    def arrays(self, address, seed):
        assert seed == 3
        found = {"sample": np.eye(4, dtype=np.uint8)[np.arange(20) % 4]}
        if address == "made/made":
            hidden = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]], bool)
            return found | {"mask_0": hidden, "mask_1": np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], bool)}
        plane = np.linspace(0, 1, 9)[:, None] * np.ones(4)
        return found | {"latent_mean": np.arange(8.0).reshape(4, 2), "label": np.arange(4), "plane": plane}


@pytest.fixture(scope="module")
def figures():
    return {picture.name: picture.figure for picture in draw(Drawn())}


def test_every_picture_is_drawn(figures):
    assert list(figures) == ["samples", "bounds", "plane", "masks"]
    assert len(figures["samples"].axes) == 2


def test_bounds_rise_to_the_grid_s_line(figures):
    line, grid = figures["bounds"].axes[0].lines
    assert list(line.get_xdata()) == [1, 5, 50, 500] and line.get_ydata() == pytest.approx(list(METRICS.values())[:4])
    assert set(grid.get_ydata()) == {-19.89}


def test_the_plane_s_second_latent_points_upwards(figures):
    sheet = figures["plane"].axes[1].images[0].get_array()
    # Point 2 of the grid is (first, third): left column, top row; frames of one pixel surround each image of 2x2.
    assert sheet[1, 1] == pytest.approx(2 / 8) and sheet[-2, -2] == pytest.approx(6 / 8)


def test_no_path_leads_to_an_output_from_itself_or_later(figures):
    paths = figures["masks"].axes[-1].images[0].get_array()
    assert (np.triu(paths) == 0).all() and paths[3, 0] == 3


def test_hidden_units_are_sorted_by_their_number_of_inputs():
    lower, upper = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0]]), np.array([[0, 0, 1], [0, 1, 0]])
    sorted_lower, sorted_upper = _masks({"mask_1": upper, "mask_0": lower})
    assert sorted_lower.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert (sorted_upper @ sorted_lower == upper @ lower).all()
