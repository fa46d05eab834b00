"""Losses against naive float64 versions, coding of boxes, the network's sizes, and inputs that are wrong."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from replications import catalogue
from replications.errors import UserError
from replications.layers.points.neighbours import gather
from replications.layers.points.sampling import farthest_point_sample
from replications.layers.rooms.backbone import Backbone
from replications.layers.rooms.boxes import paired_iou
from replications.layers.rooms.coding import BoxCoding
from replications.layers.rooms.losses import (
    Targets,
    assign_by_distance,
    assign_by_membership,
    proposal_losses,
    total_loss,
    vote_loss,
)
from replications.papers.boxnet.model import build as build_boxnet
from replications.papers.votenet.aggregation import WeightedAverage
from replications.papers.votenet.model import build as build_votenet
from replications.tasks.detection_3d import TASK
from replications.tasks.detection_3d.augment import MoveScene, Subsample, moved
from replications.tasks.detection_3d.data import SceneSet, check_scenes, nearest_to_centre
from replications.tasks.detection_3d.execute import points_in
from replications.tasks.detection_3d.options import DetectionOptions

SIZES = [[0.5, 0.5, 0.9], [1.0, 1.6, 0.7], [2.0, 1.5, 0.5]]
LEVELS = [
    {"points": 32, "radius": 0.5, "neighbours": 8, "widths": [8, 8]},
    {"points": 16, "radius": 0.8, "neighbours": 8, "widths": [8, 8]},
    {"points": 8, "radius": 1.2, "neighbours": 8, "widths": [8, 8]},
    {"points": 4, "radius": 2.0, "neighbours": 4, "widths": [8, 8]},
]
SMALL = {"levels": LEVELS, "propagation": [8], "proposals": 6, "width": 8}


def scene(batch=2, points=64, objects=3, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    centres = torch.rand(batch, objects, 3, generator=g, dtype=dtype) * 3
    sizes = 0.4 + torch.rand(batch, objects, 3, generator=g, dtype=dtype)
    heading = (torch.rand(batch, objects, 1, generator=g, dtype=dtype) - 0.5) * 12
    label = torch.randint(0, 3, (batch, objects), generator=g)
    label[0, -1] = -1
    inside = torch.randint(-1, objects, (batch, points, 3), generator=g)
    inside[inside == objects - 1] = 0
    return {
        "points": torch.rand(batch, points, 3, generator=g, dtype=dtype) * 3,
        "floor": torch.zeros(batch, dtype=dtype),
        "inside": inside.to(torch.int8),
        "boxes": torch.cat([centres, sizes, heading], -1),
        "label": label.to(torch.int8),
    }


def huber(x):
    return 0.5 * x * x if abs(x) <= 1 else abs(x) - 0.5


def cross_entropy(logits, target):
    return math.log(sum(math.exp(v) for v in logits)) - logits[target]


def test_vote_loss_equals_the_loop_over_seeds():
    batch = scene(dtype=torch.float64)
    targets = Targets(batch["boxes"], batch["label"].long())
    votes, inside = batch["points"], batch["inside"].long()
    total, count = 0.0, 0
    for b in range(2):
        for s in range(64):
            of = [k for k in inside[b, s].tolist() if k >= 0]
            if of:
                count += 1
                total += min(sum(abs(votes[b, s, i] - batch["boxes"][b, k, i]) for i in range(3)) for k in of)
    assert vote_loss(votes, inside, targets).item() == pytest.approx(float(total) / (count + 1e-6), rel=1e-12)


def test_vote_loss_is_zero_where_votes_hit_the_centres():
    batch = scene()
    targets = Targets(batch["boxes"], batch["label"].long())
    inside = batch["inside"][..., :1].long()
    votes = gather(targets.boxes[..., :3], inside.clamp(min=0)).squeeze(2)
    assert vote_loss(votes, inside, targets) == 0


def test_proposal_losses_equal_the_loop_over_proposals():
    batch = scene(dtype=torch.float64, seed=3)
    targets, coding = Targets(batch["boxes"], batch["label"].long()), BoxCoding(SIZES, 12)
    g = torch.Generator().manual_seed(1)
    near = batch["boxes"][:, torch.tensor([0, 1, 0, 1, 0]), :3]
    away = torch.tensor([0.1, 0.2, 0.25, 2.0, 0.4], dtype=torch.float64)[None, :, None] / math.sqrt(3)
    base = near + away
    raw = torch.randn(2, 5, coding.channels, generator=g, dtype=torch.float64)
    outputs = coding.split(raw, base)
    assignment = assign_by_distance(base, targets)
    found = proposal_losses(outputs, assignment, targets, coding)

    sums = dict.fromkeys(
        ("objectness", "heading_class", "heading_residual", "size_class", "size_residual", "semantic"), 0.0
    )
    to_object = from_object = positives = counted = objects = 0.0
    for b in range(2):
        real = [k for k in range(3) if targets.label[b, k] >= 0]
        said = outputs.centre[b].tolist()
        for p in range(5):
            distance = {k: math.dist(base[b, p].tolist(), batch["boxes"][b, k, :3].tolist()) for k in real}
            own = min(distance, key=distance.get)
            positive, negative = distance[own] < 0.3, distance[own] > 0.6
            if positive or negative:
                counted += 1
                weight = 0.8 if positive else 0.2
                sums["objectness"] += weight * cross_entropy(outputs.objectness[b, p].tolist(), int(positive))
            if not positive:
                continue
            positives += 1
            box, label = batch["boxes"][b, own].tolist(), int(targets.label[b, own])
            width = math.pi / 6
            shifted = (box[6] + width / 2) % (2 * math.pi)
            bin_ = int(shifted / width)
            residual = (shifted - bin_ * width - width / 2) / (width / 2)
            sums["heading_class"] += cross_entropy(outputs.heading[b, p].tolist(), bin_)
            sums["heading_residual"] += huber(outputs.heading_residual[b, p, bin_].item() - residual)
            sums["size_class"] += cross_entropy(outputs.size[b, p].tolist(), label)
            wanted = [box[3 + i] / SIZES[label][i] - 1 for i in range(3)]
            sums["size_residual"] += (
                sum(huber(outputs.size_residual[b, p, label, i].item() - wanted[i]) for i in range(3)) / 3
            )
            sums["semantic"] += cross_entropy(outputs.semantic[b, p].tolist(), label)
            to_object += min(math.dist(said[p], batch["boxes"][b, k, :3].tolist()) ** 2 for k in real)
        for k in real:
            objects += 1
            from_object += min(math.dist(point, batch["boxes"][b, k, :3].tolist()) ** 2 for point in said)
    assert positives and positives < counted < 10
    centre = to_object / (positives + 1e-6) + from_object / (objects + 1e-6)
    means = {name: value / ((counted if name == "objectness" else positives) + 1e-6) for name, value in sums.items()}
    box = (
        centre
        + 0.1 * means["heading_class"]
        + means["heading_residual"]
        + 0.1 * means["size_class"]
        + means["size_residual"]
    )
    # class weights are float32 numbers, centres of absent objects lie far away
    for name, value in {**means, "centre": centre, "box": box}.items():
        assert found[name].item() == pytest.approx(value, rel=1e-6), name
    total = total_loss(found["objectness"], found["box"], found["semantic"], 0.7)
    assert total.item() == pytest.approx(
        10 * (0.7 + 0.5 * means["objectness"] + box + 0.1 * means["semantic"]), rel=1e-6
    )


def test_a_baseline_proposal_is_positive_where_its_seed_lies_on_an_object():
    batch = scene()
    targets = Targets(batch["boxes"], batch["label"].long())
    inside = torch.tensor([[[-1, -1], [2, -1]], [[-1, 0], [-1, -1]]])
    assignment = assign_by_membership(batch["boxes"][:, :2, :3], inside, targets)
    assert assignment.positive.tolist() == [[False, True], [True, False]] and assignment.counted.all()
    assert assignment.object.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("build", [build_votenet, build_boxnet])
def test_a_scene_without_objects_has_finite_losses_and_gradients(build):
    batch = scene()
    batch["label"], batch["inside"] = torch.full_like(batch["label"], -1), torch.full_like(batch["inside"], -1)
    module = build(SIZES, 12, 0, **SMALL)
    losses = module(batch)
    losses["loss"].backward()
    assert losses["box"] == 0 and losses.get("vote", 0) == 0 and losses["objectness"] > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_boxes_encoded_and_decoded_are_the_same_boxes():
    boxes, label = scene(batch=1, objects=40)["boxes"].double(), torch.arange(40)[None] % 3
    boxes[..., 6] *= 3  # far outside ±π
    coding = BoxCoding(SIZES, 12)
    decoded = coding.decode(coding.encode(boxes, label))
    assert paired_iou(decoded[0].numpy(), boxes[0].numpy()) == pytest.approx(np.ones(40), abs=1e-5)
    assert (decoded[..., 6].abs() <= math.pi + 1e-6).all()
    turned = torch.tensor([0.3 + 4 * math.pi, 0.3 - 2 * math.pi, 0.3])
    bins, residual = coding.encode_heading(turned)
    assert bins.tolist() == [1, 1, 1] and residual.tolist() == pytest.approx([residual[2].item()] * 3, abs=1e-5)


def test_one_heading_bin_means_boxes_along_the_axes():
    coding = BoxCoding(SIZES, 1)
    assert coding.decode(coding.split(torch.randn(1, 5, coding.channels), torch.zeros(1, 5, 3)))[..., 6].eq(0).all()
    assert coding.channels == 2 + 3 + 2 + 4 * 3 + 3


def test_a_predicted_box_always_has_a_volume():
    coding = BoxCoding(SIZES, 12)
    raw = torch.randn(1, 200, coding.channels) * 30
    assert (coding.decode(coding.split(raw, torch.zeros(1, 200, 3)))[..., 3:6] > 0).all()


def test_votenet_of_the_paper_has_the_authors_number_of_parameters():
    options = catalogue.resolve("votenet/votenet", "paper", 0).options
    module = build_votenet([[1.0, 1.0, 1.0]] * 10, 12, 0, **{**options, "proposals": 256})
    norm, plain = lambda i, o: i * o + 2 * o, lambda i, o: i * o + o
    backbone = norm(4, 64) + norm(64, 64) + norm(64, 128)
    backbone += norm(131, 128) + norm(128, 128) + norm(128, 256)
    backbone += 2 * (norm(259, 128) + norm(128, 128) + norm(128, 256))
    backbone += 2 * (norm(512, 256) + norm(256, 256))
    voting = 2 * (plain(256, 256) + 512) + plain(256, 259)
    proposal = norm(259, 128) + 2 * norm(128, 128) + 2 * (plain(128, 128) + 256) + plain(128, 2 + 3 + 24 + 40 + 10)
    count = sum(p.numel() for p in module.parameters())
    assert count == backbone + voting + proposal == 951_506


def test_the_first_points_of_a_sample_are_the_sample_of_the_sample():
    points = scene(points=200)["points"]
    first = farthest_point_sample(points, 64)
    again = farthest_point_sample(gather(points, first), 20)
    assert torch.equal(again, torch.arange(20).expand(2, -1))


def test_points_in_farthest_order_give_the_same_seeds_without_sampling():
    points = scene(points=64)["points"]
    order = farthest_point_sample(points, 64)
    ordered = gather(points, order)
    torch.manual_seed(0)
    backbone = Backbone(LEVELS, [8]).eval()
    sampled = backbone(ordered, torch.zeros(2))
    backbone.sampled = 64
    taken = backbone(ordered, torch.zeros(2))
    assert torch.equal(sampled.index, taken.index) and torch.equal(sampled.features, taken.features)


def test_a_ball_that_is_filled_up_counts_each_vote_once_in_the_average():
    features = torch.tensor([[[1.0], [5.0], [100.0]]])
    points = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [9.0, 0, 0]]])
    pool = WeightedAverage(1, 0.3, 8, [])
    _, pooled, _ = pool(points, features, torch.tensor([[0]]))
    near = math.exp(-0.01 / (2 * 0.15**2))
    assert pooled.item() == pytest.approx((1 + 5 * near) / (1 + near), rel=1e-5)


def test_moving_a_scene_moves_its_boxes_with_its_points():
    options = DetectionOptions(points=64, flip=("x", "y"), rotation=180)
    batch = scene(batch=32, points=400, objects=4)
    batch["boxes"][..., :3] = batch["points"][:, :4]
    change = MoveScene(options, oriented=True)
    draws = change.draw(32, torch.Generator().manual_seed(0))
    after = change.apply(batch, draws)
    assert draws["flip"].any() and not draws["flip"].all()
    assert torch.equal(points_in(after["boxes"], after["points"]), points_in(batch["boxes"], batch["points"]))
    mirrored = moved(
        batch["points"], batch["boxes"], torch.tensor([[True, False]] * 32), torch.zeros(32), torch.ones(32), True
    )
    before, heading = batch["boxes"][..., 6], mirrored["boxes"][..., 6]
    assert heading.cos() == pytest.approx(-before.cos(), abs=1e-5)
    assert heading.sin() == pytest.approx(before.sin(), abs=1e-5)
    one = moved(batch["points"], batch["boxes"], draws["flip"], torch.zeros(32), torch.full((32,), 2.0), True)
    assert one["boxes"][..., 3:6] == pytest.approx(2 * batch["boxes"][..., 3:6])


def test_a_subsample_draws_points_with_their_objects():
    batch = scene(points=50)
    batch["points"][..., 0] = torch.arange(50.0)
    batch["inside"][..., 0] = torch.arange(50, dtype=torch.int8)
    thin = Subsample(50, 20)
    after = thin.apply(batch, thin.draw(2, torch.Generator().manual_seed(0)))
    assert after["points"].shape == (2, 20, 3) and torch.equal(
        after["points"][..., 0].to(torch.int8), after["inside"][..., 0]
    )
    assert all(len(set(row.tolist())) == 20 for row in after["points"][..., 0])


# Inputs that are wrong


def scene_set(**changes):
    batch = {name: value.numpy() for name, value in scene(batch=3).items() if name != "floor"}
    whole = SceneSet("x", **batch, split=np.zeros(3, np.int8), classes=("a", "b", "c"),
                     mean_sizes=tuple(map(tuple, SIZES)), oriented=True, sampled=0)  # fmt: skip
    return dataclasses.replace(whole, **changes)


def test_good_scenes_pass():
    check_scenes(scene_set())


def broken(name, place, value):
    array = getattr(scene_set(), name).copy()
    array[place] = value
    return {name: array}


@pytest.mark.parametrize(
    "changes, says",
    [
        (broken("points", (1, 5, 2), np.nan), "scene 1: a point's coordinate is not finite"),
        (broken("boxes", (2, 0, 4), 0.0), "scene 2: a box of size .* has no volume"),
        (broken("boxes", (2, 1, 0), np.inf), "scene 2: a box is not finite"),
        (broken("label", (1, 1), 3), "scene 1: class 3 is not among the 3 mean sizes"),
        ({"points": np.zeros((3, 0, 3), np.float32)}, "scenes without points"),
    ],
)
def test_wrong_scenes_are_named_in_one_line(changes, says):
    with pytest.raises(UserError, match=says) as error:
        check_scenes(scene_set(**changes))
    assert "\n" not in str(error.value)


def test_an_absent_object_may_have_any_box():
    whole = scene_set()
    whole.boxes[0, -1] = 0
    check_scenes(whole)


def test_fewer_points_than_asked_for_are_refused():
    with pytest.raises(UserError, match="samples 32 points of 20"):
        Backbone(LEVELS, [8])(torch.rand(1, 20, 3), torch.zeros(1))
    with pytest.raises(UserError, match="40 proposals of 16 seeds"):
        build_votenet(SIZES, 12, 0, **SMALL).eval().predict(torch.rand(1, 64, 3), torch.zeros(1), "votes", 40)


@pytest.mark.parametrize("options", [{"aggregation": "mean"}, {"training_sampling": "both"}])
def test_unknown_words_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        build_votenet(SIZES, 12, 0, **SMALL, **options)


@pytest.mark.parametrize(
    "options, says",
    [({"points": 0}, "points"), ({"points": 9, "scale": [2, 1]}, "scale"), ({"points": 9, "rotate": 1}, "rotat"),
     ({"points": 9, "test_proposals": [0]}, "factors above 0")],
)  # fmt: skip
def test_task_options_are_checked(options, says):
    with pytest.raises(UserError, match=says):
        TASK.parse_options(options)


def test_mean_sizes_must_be_sizes():
    with pytest.raises(UserError, match="above 0"):
        BoxCoding([[1.0, 0.0, 1.0]], 12)


def test_distance_of_a_centre_is_that_to_its_own_nearest_point():
    points = np.array([[[0, 0, 0], [1, 0, 0], [5, 0, 0.0]]])
    inside = np.array([[[-1], [0], [0]]])
    boxes = np.array([[[0.1, 0, 0, 1, 1, 1, 0], [0.2, 0, 0, 1, 1, 1, 0], [0] * 7]])
    found = nearest_to_centre(points, inside, boxes, np.array([[0, 0, -1]]))
    assert found[0, :2] == pytest.approx([0.9, 0.2]) and np.isnan(found[0, 2])
