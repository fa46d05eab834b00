"""A training step does not wait for its accelerator, counted without one; what cannot be helped is listed here."""

from collections import Counter

import pytest
import torch

from replications import catalogue, running
from replications.datasets.prepare import prepare
from replications.errors import RunFailure
from replications.layers.detection.boxes import generalized_iou
from replications.layers.points import checks
from replications.layers.points.neighbours import ball_query, knn
from replications.layers.points.pooling import _Maximum
from replications.layers.points.sampling import farthest_point_sample
from replications.measurement.syncs import HostWaits
from replications.tasks.detection_2d.augment import Normalise
from replications.tasks.detection_3d.augment import MoveScene, Subsample
from replications.tasks.detection_3d.options import DetectionOptions
from replications.training.distribution import Distribution
from replications.training.meter import Meter
from replications.training.moves import norm_names
from replications.training.photometric import ColourJitter, RandomErasing
from replications.training.update import Updater

CPU = torch.device("cpu")
SMOKE = catalogue.methods_of(catalogue.papers(), "smoke")

MATCHER = {"copy to the host": 1}  # the costs, to scipy
MASKS = {**MATCHER, "nonzero": 1}  # masks of matched queries only
TORCHVISION = {"mask as an index", "nonzero", "constant", "tolist"}  # lists of boxes, image by image


def waits_of(address: str) -> Counter[str] | None:
    """Count the waits of a second training step; None where nothing is trained."""
    spec = catalogue.resolve(address, "smoke", 0)
    torch.set_num_threads(spec.threads)
    try:
        stage = running.make_workload(spec, waits_of.data, CPU).stage
    except RunFailure as failure:
        if failure.reason != "does not apply":
            raise
        return None
    if not any(p.requires_grad for p in stage.module.parameters()):
        return None
    updater = Updater(stage, CPU, Distribution(), 10, Meter(10, CPU, Distribution(), norm_names(stage)))
    stage.module.train()
    updater.take(0)
    with HostWaits() as waits:
        updater.take(1)
    return waits.found


@pytest.fixture(scope="module", autouse=True)
def _data(tmp_path_factory):
    waits_of.data = tmp_path_factory.mktemp("data")
    for key in sorted({key for address in SMOKE for key in catalogue.resolve(address, "smoke", 0).data.values()}):
        prepare(key, waits_of.data)


@pytest.fixture
def as_on_a_device(monkeypatch):
    """Take the forms of point operations that an accelerator takes."""
    monkeypatch.setattr(checks, "on_host", lambda tensor: False)


@pytest.mark.parametrize("address", SMOKE)
def test_a_training_step_does_not_wait(address, as_on_a_device):
    found = waits_of(address)
    detector = catalogue.resolve(address, "smoke", 0).build.partition(":")[0]
    if address.startswith("faster_rcnn/"):
        assert set(found) <= TORCHVISION, found
    elif catalogue.resolve(address, "smoke", 0).task == "detection_2d":
        assert dict(found) in (MATCHER, MASKS if detector == "masks" else MATCHER), found
    else:
        assert not found, f"{address} waits for the device: {dict(found)}"


@pytest.mark.parametrize(
    "change",
    [ColourJitter(0.4), RandomErasing(0.5), MoveScene(DetectionOptions(points=9), True), Subsample(9, 4), Normalise()],
    ids=lambda change: type(change).__name__,
)
def test_augmentation_on_the_device_does_not_wait(change):
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.zeros(4, 8, 8, 3, dtype=torch.uint8), "points": torch.rand(4, 9, 3), "floor": torch.zeros(4),
        "boxes": torch.rand(4, 2, 7), "inside": torch.zeros(4, 9, 1),
    }  # fmt: skip
    change.apply(batch, change.draw(4, generator))  # what is copied once
    draws = change.draw(4, generator)
    with HostWaits() as waits:
        change.apply(batch, draws)
    assert not waits.found


def test_every_kind_of_wait_is_seen():
    x = torch.arange(6.0, requires_grad=True)
    with HostWaits() as waits:
        if (x > 1).any():
            (x * (x > 3)).sum().item()
        x[x > 2].sum()
        x.detach().tolist()
        torch.bincount(torch.tensor([1, 2]))
        x.view(3, 2).prod(-1).sum().backward()
    assert waits.found == {
        "item": 2, "mask as an index": 1, "tolist": 1, "bincount": 1, "constant": 1, "gradient of prod": 1,
    }  # fmt: skip
    with HostWaits() as waits:
        y = x.detach().clone()
        y[y > 2] = 0.0
        y.masked_fill_(y > 1, 2.0).cumsum(0)
    assert not waits.found


def test_the_device_s_forms_find_what_the_host_s_find(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    for n, spread in ((40, 1.0), (1500, 1.0)):
        points = (torch.rand(2, n, 3, generator=generator) * 8).round() / 8 * spread  # a grid: ties and borders
        centres = torch.cat([points[:, :9], points[:, :3] + 0.25, points[:, :2] + 5.0], dim=1)  # some have no one near
        own = [knn(centres, points, 8), ball_query(centres, points, 0.125, 6), farthest_point_sample(points, 20)]
        with monkeypatch.context() as patched:
            patched.setattr(checks, "on_host", lambda tensor: False)
            other = [knn(centres, points, 8), ball_query(centres, points, 0.125, 6), farthest_point_sample(points, 20)]
        assert torch.equal(own[0][0], other[0][0]) and torch.equal(own[0][1], other[0][1])
        assert torch.equal(own[1], other[1]) and other[1].dtype == torch.int64
        assert torch.equal(own[2], other[2])


@pytest.mark.parametrize("dim", [1, 2, -2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maximum_has_torch_s_gradient_also_on_ties(dim, dtype):
    x = torch.randint(0, 3, (4, 5, 6, 7), generator=torch.Generator().manual_seed(0)).to(dtype)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = one.max(dim)[0], _Maximum.apply(other, dim)
    weight = torch.rand(a.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (a * weight).sum().backward()
    (b * weight).sum().backward()
    assert torch.equal(a, b) and torch.equal(one.grad, other.grad)


def test_the_overlap_of_boxes_has_its_gradient_where_they_do_not_touch():
    apart = torch.tensor([[0.0, 0.0, 1.0, 1.0]], requires_grad=True)
    value = generalized_iou(apart, torch.tensor([[2.0, 0.0, 3.0, 1.0]]))
    assert value.item() == pytest.approx(-1 / 3)
    value.sum().backward()
    # enclosing = (3 - x0)(1 - 0); -(e - u) / e = u / e - 1 with u = (x1 - x0) + 1 and e = 3 - x0
    assert apart.grad[0, 0].item() == pytest.approx((-1 * 3 + 2) / 9)
    assert apart.grad[0, 2].item() == pytest.approx(1 / 3)
