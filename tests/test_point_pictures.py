"""Pictures of clouds: each cloud in a panel of its own, whether there are fewer clouds than panels or more."""

import numpy as np
import pytest

from replications.tasks.point_classification.pictures import densities_and_maps


@pytest.mark.parametrize(("clouds", "drawn"), [(1, 1), (4, 4), (6, 4)])
def test_densities_and_maps_with_fewer_and_more_clouds_than_panels(clouds, drawn):
    random = np.random.default_rng(0)
    points = random.uniform(-1, 1, (clouds, 20, 3))
    density = {"density_points": points, "density": random.uniform(size=(clouds, 20))}
    maps = {"map_points": points, "map_nodes": random.uniform(-1, 1, (clouds, 9, 3))}
    figure = densities_and_maps(density, maps, 6.0)
    assert [bool(axes.collections) for axes in figure.axes] == 2 * ([True] * drawn + [False] * (4 - drawn))


def test_every_density_belongs_to_a_cloud():
    density = {"density_points": np.zeros((3, 20, 3)), "density": np.ones((2, 20))}
    with pytest.raises(ValueError, match="shorter"):
        densities_and_maps(density, None, 6.0)
