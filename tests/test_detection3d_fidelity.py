"""3-D detection where the authors' code is not what one would guess: first weights, interpolation, boxes, floor."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from replications import catalogue, running
from replications.datasets.prepare import prepare
from replications.errors import UserError
from replications.layers.points.shared_mlp import SharedMLP
from replications.papers.boxnet.model import build as build_boxnet
from replications.papers.votenet.model import build as build_votenet
from replications.tasks.detection_3d.augment import MoveScene, moved
from replications.tasks.detection_3d.execute import Run, detect
from replications.tasks.detection_3d.options import DetectionOptions

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    prepare("rooms_smoke", root)
    return root


def made(data_root, *assignments) -> Run:
    spec = catalogue.resolve("votenet/votenet", "smoke", 0, assignments)
    return Run.of(running.RunContext(spec, CPU, data_root, data_root))


# First weights


@pytest.fixture(scope="module", params=[build_votenet, build_boxnet])
def network(request):
    torch.manual_seed(0)
    options = catalogue.resolve("votenet/votenet", "paper", 0).options
    return request.param([[1.0, 1.0, 1.0]] * 10, 12, 0, **options)


def test_shared_networks_start_he_normal(network):
    shared = [mlp for mlp in network.modules() if isinstance(mlp, SharedMLP)]
    layers = [layer for mlp in shared for layer in mlp.layers if isinstance(layer, nn.Linear)]
    assert len(layers) == 4 * 3 + 2 * 2 + 3 and all(layer.bias is None for layer in layers)
    weights = [layer.weight for layer in layers]
    for weight in weights:
        assert weight.std().item() == pytest.approx(math.sqrt(2 / weight.shape[1]), rel=0.15)
    second = network.backbone.abstractions[0].mlps[0].layers[3].weight
    assert second.shape == (64, 64) and second.std().item() == pytest.approx(0.177, abs=0.006)
    every = torch.cat([weight.flatten() * math.sqrt(weight.shape[1] / 2) for weight in weights]).double()
    assert (every**4).mean().item() == pytest.approx(3, abs=0.05)  # of a normal distribution; 1.8 of a uniform one


def test_heads_start_as_torch_makes_them_and_norms_as_the_identity(network):
    plain = [*network.proposal.head, *(network.voting.network if hasattr(network, "voting") else [])]
    layers = [layer for layer in plain if isinstance(layer, nn.Linear)]
    assert len(layers) in (3, 6)
    for layer in layers:
        bound = 1 / math.sqrt(layer.in_features)
        assert 0.95 * bound < layer.weight.abs().max() <= bound and 0.8 * bound < layer.bias.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d)]
    assert all(norm.weight.eq(1).all() and norm.bias.eq(0).all() for norm in norms)


def test_the_backbone_interpolates_by_distance_not_by_its_square(network):
    for layer in network.backbone.propagations:
        layer = type(layer)(1, [], layer.power)
        coarse = torch.tensor([[[0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.4]]])
        found = layer(torch.zeros(1, 1, 3), coarse, None, torch.tensor([[[1.0], [10.0], [100.0]]]))
        assert found.item() == pytest.approx((4 * 1 + 2 * 10 + 1 * 100) / 7, rel=1e-5)


# Boxes of a scene that turns


def extent(boxes: np.ndarray, angle: float) -> np.ndarray:
    """Sizes of boxes ``[n, 7]`` along the axes after a turn, from their four corners."""
    corners = boxes[:, None, 3:5] / 2 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = corners @ turn.T
    return np.concatenate([np.ptp(corners, axis=1), boxes[:, 5:6]], axis=1)


def test_a_box_along_the_axes_grows_to_hold_the_turned_one():
    one = torch.tensor([[[3.0, 0, 0, 2, 1, 0.5, 0]]])
    turned = torch.tensor([math.radians(5)])
    after = moved(torch.zeros(1, 1, 3), one, torch.zeros(1, 2, dtype=torch.bool), turned, torch.ones(1), False)["boxes"]
    assert after[0, 0, 3:].tolist() == pytest.approx([2.0795, 1.1705, 0.5, 0], abs=1e-4)
    assert after[0, 0, :3].tolist() == pytest.approx([3 * math.cos(math.radians(5)), 3 * math.sin(math.radians(5)), 0])


@pytest.mark.parametrize("oriented", [False, True])
def test_scenes_mirrored_turned_and_scaled_against_the_corners(oriented):
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.normal(size=(16, 4, 3)), rng.uniform(0.2, 2, (16, 4, 3)), np.zeros((16, 4, 1))], -1)
    if oriented:
        boxes[..., 6] = rng.uniform(-3, 3, (16, 4))
    batch = {"points": torch.zeros(16, 2, 3), "boxes": torch.from_numpy(boxes), "floor": torch.linspace(-1, 1, 16)}
    change = MoveScene(DetectionOptions(points=2, flip=("x", "y"), rotation=180, scale=(0.8, 1.2)), oriented)
    draws = change.draw(16, torch.Generator().manual_seed(0))
    after = change.apply(batch, draws)
    assert after["floor"].tolist() == pytest.approx((batch["floor"] * draws["scale"]).tolist())
    for row in range(16):
        angle, scale = draws["angle"][row].item(), draws["scale"][row].item()
        sign = np.where(draws["flip"][row].numpy(), -1, 1)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        centre = (boxes[row, :, :2] * sign) @ turn.T * scale
        assert after["boxes"][row, :, :2].numpy() == pytest.approx(centre, abs=1e-5)
        heading, size = after["boxes"][row, :, 6].numpy(), after["boxes"][row, :, 3:6].numpy()
        if not oriented:
            assert (heading == 0).all() and size == pytest.approx(extent(boxes[row], angle) * scale, rel=1e-5)
            continue
        assert size == pytest.approx(boxes[row, :, 3:6] * scale, rel=1e-5)
        ahead = np.stack([np.cos(boxes[row, :, 6]), np.sin(boxes[row, :, 6])], axis=-1) * sign @ turn.T
        assert np.stack([np.cos(heading), np.sin(heading)], axis=-1) == pytest.approx(ahead, abs=1e-5)


def test_a_set_whose_boxes_have_no_heading_is_turned_so(data_root):
    whole = made(data_root, "task.rotation=90")
    assert whole.stage().batches.batch(0)["boxes"][..., 6].any()
    whole.train = dataclasses.replace(whole.train, oriented=False)
    assert not whole.stage().batches.batch(0)["boxes"][..., 6].any()


def test_one_heading_bin_for_boxes_with_headings_is_refused(data_root):
    with pytest.raises(UserError, match="'rooms_smoke' has boxes with headings: raise the task option heading_bins"):
        made(data_root, "task.heading_bins=1")


# The floor


def floor_of(cloud: np.ndarray) -> float:
    """The 0.99th of a hundred percentiles of z, between two points on a straight line."""
    z = sorted(cloud[:, 2].astype(float))
    place = 0.0099 * (len(z) - 1)
    below = int(place)
    return z[below] + (place - below) * (z[below + 1] - z[below])


def test_height_is_above_the_floor_of_all_stored_points(data_root):
    few = made(data_root, "task.points=70", "task.rotation=0", "task.flip=[]", "task.scale=[1, 1]")
    stored = few.train.points
    wanted = [floor_of(cloud) for cloud in stored]
    assert few.train.floor.tolist() == pytest.approx(wanted, abs=1e-6)
    assert any(abs(value - floor_of(cloud[:70])) > 1e-3 for value, cloud in zip(wanted, stored, strict=True))

    seen = []
    few.model.backbone.abstractions[0].register_forward_pre_hook(lambda _, args: seen.append(args))
    batch = few.stage().batches.batch(0)
    few.model(batch)
    for points, floor, feature in zip(batch["points"], batch["floor"], seen[0][1], strict=True):
        row = np.flatnonzero([(cloud == points[0].numpy()).all(1).any() for cloud in stored])
        assert floor.item() == pytest.approx(wanted[row.item()], abs=1e-6)
        assert feature[:, 0].tolist() == pytest.approx((points[:, 2] - wanted[row.item()]).tolist(), abs=1e-6)

    rows = few.test.rows("test")
    seen.clear()
    detect(few, few.model.eval(), few.test, rows, {"own": ("seeds", None)})
    heights = torch.cat([args[1] for args in seen])[..., 0].numpy()
    expected = few.test.points[rows, :70, 2] - np.array([floor_of(few.test.points[row]) for row in rows])[:, None]
    assert heights == pytest.approx(expected, abs=1e-5)
