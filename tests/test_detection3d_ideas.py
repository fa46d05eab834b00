"""The ideas of VoteNet and BoxNet against naive float64: each was broken on purpose (see the table in README.md)."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from replications.layers.rooms.losses import Assignment, Targets, proposal_losses
from replications.layers.rooms.model import Predictions
from replications.papers.boxnet.model import build as build_boxnet
from replications.papers.votenet.aggregation import NearestVote
from replications.papers.votenet.model import build as build_votenet
from replications.papers.votenet.voting import VotingModule
from replications.tasks.detection_3d.execute import detect
from replications.tasks.detection_3d.options import DetectionOptions

SIZES = [[0.5, 0.5, 0.9], [1.0, 1.6, 0.7], [2.0, 1.5, 0.5]]
LEVELS = [
    {"points": points, "radius": radius, "neighbours": 8, "widths": [8, 8]}
    for points, radius in ((64, 0.5), (32, 0.8), (16, 1.2), (8, 2.0))
]
PROPOSALS, RADIUS, NEIGHBOURS = 8, 0.5, 4


def network(build) -> nn.Module:
    """A small detector in float64 and eval mode, whose norms are not the identity and whose votes go far."""
    torch.manual_seed(0)
    small = {"levels": LEVELS, "propagation": [8], "proposals": PROPOSALS, "width": 8}
    module = build(SIZES, 12, 0, **small, cluster_radius=RADIUS, cluster_neighbours=NEIGHBOURS)
    if build is build_votenet:
        for layer in module.voting.network[::3]:
            layer.weight.data *= 4
    return unsettle(module)


def unsettle(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.double().eval()


def run_layers(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Linear layers, norms and ReLUs in eval mode by their formulas, on ``[n, channels]``."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            x = x @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        elif isinstance(layer, nn.BatchNorm1d):
            x = (x - layer.running_mean) / (layer.running_var + layer.eps).sqrt() * layer.weight + layer.bias
        else:
            x = x * (x > 0)
    return x


def farthest(points: torch.Tensor, count: int) -> list[int]:
    chosen = [0]
    while len(chosen) < count:
        chosen.append(int(torch.cdist(points, points[chosen]).min(1).values.argmax()))
    return chosen


def votes_of(layers: nn.Sequential, points: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    said = run_layers(layers, features)
    moved = features + said[:, 3:]
    return points + said[:, :3], moved / moved.square().sum(1, keepdim=True).sqrt()


def proposals_of(module: nn.Module, points: torch.Tensor, features: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """Return which of a scene's votes clusters grow around, and what the head says of each cluster."""
    index, pooled, shared = farthest(points, PROPOSALS), [], module.proposal.aggregate.mlps[0].layers
    for place in index:
        distance = (points - points[place]).square().sum(1).sqrt()
        group = [k for k in range(len(points)) if distance[k] < RADIUS][:NEIGHBOURS]
        offset = (points[group] - points[place]) / RADIUS
        pooled.append(run_layers(shared, torch.cat([offset, features[group]], 1)).amax(0))
    return index, run_layers(module.proposal.head, torch.stack(pooled))


def scenes() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return {"points": torch.rand(2, 96, 3, generator=g).double() * 2, "floor": torch.tensor([0.0, 0.1]).double()}


def naive(module: nn.Module, batch: dict[str, torch.Tensor], voting: bool) -> list[SimpleNamespace]:
    """Each scene's seeds, votes and proposals; the backbone has tests of its own."""
    seeds = module.backbone(batch["points"], batch["floor"])
    result = []
    for points, features, index in zip(seeds.points, seeds.features, seeds.index, strict=True):
        votes, known = votes_of(module.voting.network, points, features) if voting else (points, features)
        chosen, raw = proposals_of(module, votes, known)
        scene = {"seeds": points, "index": index, "votes": votes, "chosen": chosen, "base": votes[chosen], "raw": raw}
        result.append(SimpleNamespace(**scene))
    return result


def test_a_vote_is_its_seed_moved_and_its_feature_moved_to_unit_length():
    torch.manual_seed(1)
    module = unsettle(VotingModule(6))
    points, features = torch.randn(2, 9, 3).double(), torch.randn(2, 9, 6).double()
    votes, said = module(points, features)
    for b in range(2):
        wanted = votes_of(module.network, points[b], features[b])
        torch.testing.assert_close(votes[b], wanted[0])
        torch.testing.assert_close(said[b], wanted[1])
    assert (votes - points).norm(dim=-1).min() > 0.05


@pytest.mark.parametrize("build, voting", [(build_votenet, True), (build_boxnet, False)])
def test_clusters_grow_around_far_votes_and_hold_the_votes_nearby(build, voting):
    module, batch = network(build), scenes()
    found = module.predict(batch["points"], batch["floor"], "votes")
    for b, scene in enumerate(naive(module, batch, voting)):
        torch.testing.assert_close(found.votes[b], scene.votes)
        outputs = module.coding.split(scene.raw[None], scene.base[None])
        torch.testing.assert_close(found.boxes[b], module.coding.decode(outputs)[0])
        torch.testing.assert_close(found.objectness[b], outputs.objectness[0].softmax(-1)[:, 1])
        torch.testing.assert_close(found.classes[b], outputs.semantic[0].softmax(-1))
        moved = (scene.votes - scene.seeds).norm(dim=-1)
        assert bool(moved.min() > 0.1) == voting
        assert (scene.chosen != farthest(scene.seeds, PROPOSALS)) == voting


def truth(scenes_: list[SimpleNamespace], offsets: tuple[float, ...]) -> dict[str, torch.Tensor]:
    """Objects whose centres lie so far from a cluster each, and two unused places. Every other seed lies on some."""
    boxes, label, inside = torch.zeros(2, 5, 7).double(), torch.full((2, 5), -1), torch.full((2, 96, 3), -1)
    for b, scene in enumerate(scenes_):
        for k, offset in enumerate(offsets):
            boxes[b, k] = torch.tensor([*scene.base[2 * k].tolist(), 1.0, 0.8, 0.7, 0.5 * k - 1])
            boxes[b, k, 2] += offset
            label[b, k] = k
        inside[b, scene.index[::2], 0] = torch.arange(16) % 3
        inside[b, scene.index[:8:2], 2] = 1
        inside[b, scene.index[3], 1] = 2
    return {"boxes": boxes, "label": label, "inside": inside}


@pytest.mark.parametrize("build, voting", [(build_votenet, True), (build_boxnet, False)])
def test_losses_of_a_batch_follow_votes_and_near_and_far(build, voting):
    module, batch = network(build), scenes()
    every = naive(module, batch, voting)
    batch |= truth(every, (0.1, 0.28, 0.45))
    losses = module(batch)

    objects, positive, counted, said, on_object = [], [], [], [], []
    for b, scene in enumerate(every):
        centres = batch["boxes"][b, :3, :3]
        distance = torch.cdist(scene.base, centres)
        own, nearest = batch["inside"][b][scene.index], distance.min(1)
        objects.append(nearest.indices)
        if voting:
            positive.append(nearest.values < 0.3)
            counted.append((nearest.values < 0.3) | (nearest.values > 0.6))
        else:
            positive.append(torch.tensor([(own[i] >= 0).any().item() for i in scene.chosen]))
            counted.append(torch.ones(PROPOSALS, dtype=torch.bool))
        said.append(scene.raw)
        for vote, of in zip(scene.votes, own.tolist(), strict=True):
            far = [(vote - centres[k]).abs().sum() for k in of if k >= 0]
            on_object += [min(far)] if far else []
    assignment = Assignment(*map(torch.stack, (objects, positive, counted)))
    assert 2 < assignment.positive.sum() < 14 and bool((~assignment.counted).sum() > 0) == voting
    outputs = module.coding.split(torch.stack(said), torch.stack([scene.base for scene in every]))
    targets = Targets(batch["boxes"], batch["label"])
    wanted = proposal_losses(outputs, assignment, targets, module.coding)
    if voting:
        wanted["vote"] = torch.stack(on_object).mean()
        assert wanted["vote"] > 0.1
    assert set(losses) == {"loss", *wanted}
    for name, value in wanted.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-5), name
    whole = wanted.get("vote", 0) + 0.5 * wanted["objectness"] + wanted["box"] + 0.1 * wanted["semantic"]
    assert losses["loss"].item() == pytest.approx(10 * whole.item(), rel=1e-5)


def test_the_vote_loss_pulls_votes_to_the_centres():
    module, batch = network(build_votenet), scenes()
    every = naive(module, batch, voting=True)
    batch |= truth(every, (0.1, 0.28, 0.45))
    batch["inside"][..., 1:] = -1  # each seed on one object at most: the gradient of |x| is a sign
    losses = module(batch)
    bias = module.voting.network[-1].bias
    signs = []
    for b, scene in enumerate(every):
        for vote, of in zip(scene.votes, batch["inside"][b, scene.index, 0].tolist(), strict=True):
            if of >= 0:
                signs.append((vote - batch["boxes"][b, of, :3]).sign())
    pull = torch.stack(signs).mean(0)
    rest = 10 * (0.5 * losses["objectness"] + losses["box"] + 0.1 * losses["semantic"])
    (whole,) = torch.autograd.grad(losses["loss"], bias, retain_graph=True)
    (other,) = torch.autograd.grad(rest, bias, retain_graph=True)
    assert pull.abs().max() > 0.1
    torch.testing.assert_close((whole - other)[:3], 10 * pull, rtol=1e-5, atol=1e-5)
    assert other[:3].abs().max() > 0  # votes carry their clusters, too


def test_the_nearest_vote_speaks_for_its_cluster_alone():
    torch.manual_seed(0)
    pool = unsettle(NearestVote(5, (4,)))
    points, features = torch.rand(1, 9, 3).double() * 0.1, torch.randn(1, 9, 5).double()
    centres, pooled, _ = pool(points, features, torch.tensor([[7, 2]]))
    torch.testing.assert_close(centres, points[:, [7, 2]])
    torch.testing.assert_close(pooled[0], run_layers(pool.network.layers, features[0, [7, 2]]))


def test_detections_are_confident_hold_points_and_outlive_better_ones_of_their_class():
    box = torch.tensor([0.0, 0, 0, 2, 2, 2, 0])
    at = torch.tensor([0.0, 0.2, 0.2, 6.0, 20.0, 0.1])  # of the box's centre along x
    boxes = box.repeat(6, 1)
    boxes[:, 0] = at
    classes = torch.eye(2)[torch.tensor([0, 0, 1, 0, 0, 0])]
    objectness = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.04])
    points = torch.zeros(19, 3)
    points[10:15, 0], points[15:, 0] = 6.0, 20.0
    nothing = torch.zeros(1, 1, 3)
    found = Predictions(boxes[None], objectness[None], classes[None], nothing, nothing, nothing[..., 0].long())
    options = DetectionOptions(points=19, min_points=5, confidence=0.05, nms_iou=0.25)
    model = SimpleNamespace(look=lambda points, floor: (), propose=lambda *_: found)
    spec = SimpleNamespace(recipe=SimpleNamespace(precision="float32"))
    run = SimpleNamespace(options=options, context=SimpleNamespace(device=torch.device("cpu"), spec=spec))
    shown = SimpleNamespace(points=points[None].numpy(), floor=np.zeros(1, np.float32))
    kept = detect(run, model, shown, np.array([0]), {"own": ("seeds", None)})["own"].detections.kept
    assert math.isclose(1.8 / 2.2, 0.818, abs_tol=1e-3)  # the IoU of the first two
    assert kept[0].tolist() == [True, False, True, True, False, False]
