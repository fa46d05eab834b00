"""Angles of ArcFace, Table 3, on layouts where they are known."""

import math

import pytest
import torch

from replications.layers.faces.angles import (
    class_angles,
    class_centres,
    mean_nearest_angle,
    weight_angles,
)


def on_circle(degrees: list[float]) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_known_angles_in_the_plane():
    # Classes around 0, 90 and 200 degrees; images 10 degrees to each side; one class of a single image.
    embedding = on_circle([-10, 10, 80, 100, 200])
    identity = torch.tensor([7, 7, 3, 3, 5])
    angles = class_angles(embedding, identity, "test")
    assert angles["angle_intra_test"] == pytest.approx(10.0, abs=1e-3)
    # Nearest other centre: 0 -> 90, 90 -> 90, 200 -> 110 (to 90).
    assert angles["angle_inter_test"] == pytest.approx((90 + 90 + 110) / 3, abs=1e-3)


def test_length_of_an_embedding_does_not_matter():
    torch.manual_seed(0)
    embedding, identity = torch.randn(40, 8), torch.arange(40) // 4
    scaled = embedding * torch.rand(40, 1).add(0.1)
    for name, value in class_angles(embedding, identity, "train").items():
        assert class_angles(scaled, identity, "train")[name] == pytest.approx(value, abs=1e-3)


def test_weight_angles():
    weight = on_circle([0, 60, 180])
    embedding = on_circle([10, 30, 70, 90])  # centres 20 and 80 of classes 0 and 1; class 2 has no image
    angles = weight_angles(weight, embedding, torch.tensor([0, 0, 1, 1]))
    assert angles["angle_weight_centre"] == pytest.approx(20.0, abs=1e-3)
    assert angles["angle_weight_inter"] == pytest.approx((60 + 60 + 120) / 3, abs=1e-3)


def test_chunks_do_not_change_the_nearest_angle(monkeypatch):
    torch.manual_seed(0)
    direction = torch.randn(37, 5)
    whole = mean_nearest_angle(direction)
    monkeypatch.setattr("replications.layers.faces.angles.CHUNK", 8)
    assert mean_nearest_angle(direction) == pytest.approx(whole, abs=1e-4)
    unit = direction / direction.norm(dim=1, keepdim=True)
    angles = [min(math.degrees(math.acos(float(unit[i] @ unit[j]))) for j in range(37) if j != i) for i in range(37)]
    assert whole == pytest.approx(sum(angles) / 37, abs=1e-3)


def test_class_centres_are_unit_vectors_of_unit_embeddings():
    centres = class_centres(torch.tensor([[100.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), 1)
    torch.testing.assert_close(centres, torch.tensor([[math.sqrt(0.5), math.sqrt(0.5)]]))
