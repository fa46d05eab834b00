"""Boxes, matching and the set loss: invariants, and agreement with plain double-precision references."""

import itertools

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from replications.errors import RunFailure, UserError
from replications.layers.detection.attention import Attention
from replications.layers.detection.backbone import Backbone
from replications.layers.detection.boxes import generalized_iou, to_cxcywh, to_xyxy
from replications.layers.detection.criterion import SetLoss, classes_of_queries, order_gap
from replications.layers.detection.matcher import UNMATCHED, MatchCost, match, matching_cost
from replications.layers.detection.model import Detections, image_sizes
from replications.layers.detection.positions import point_positions, sine_positions
from replications.papers.conditional_detr import model as conditional_detr
from replications.papers.detr import model as detr
from replications.tasks.detection_2d.execute import learning
from replications.tasks.detection_2d.stages import suppressed

CLASSES = 4


def problem(seed, counts=(3, 0, 2), queries=6, layers=2):
    g = torch.Generator().manual_seed(seed)
    batch, most = len(counts), max(1, *counts)
    return (
        torch.randn(layers, batch, queries, CLASSES + 1, generator=g),
        0.1 + 0.5 * torch.rand(layers, batch, queries, 4, generator=g),
        {
            "boxes": 0.1 + 0.5 * torch.rand(batch, most, 4, generator=g),
            "labels": torch.randint(0, CLASSES, (batch, most), generator=g),
            "valid": torch.arange(most)[None] < torch.tensor(counts)[:, None],
        },
    )


def matched(logits, boxes, target):
    cost = matching_cost(logits, boxes, target["labels"], target["boxes"], MatchCost())
    return match(cost, target["valid"].sum(1))


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_giou_is_torchvisions(seed):
    g = torch.Generator().manual_seed(seed)
    one, other = (to_xyxy(torch.rand(n, 4, generator=g, dtype=torch.float64)) for n in (5, 7))
    mine = generalized_iou(one[:, None], other[None])
    torch.testing.assert_close(mine, torchvision.ops.generalized_box_iou(one, other))
    assert (mine <= 1).all() and (mine >= -1).all()


def test_giou_of_empty_boxes_is_a_number_and_has_a_gradient():
    box = torch.zeros(1, 4, requires_grad=True)
    value = generalized_iou(box, torch.zeros(1, 4))
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(box.grad).all()


def test_box_forms_are_inverse():
    boxes = torch.rand(9, 4)
    torch.testing.assert_close(to_cxcywh(to_xyxy(boxes)), boxes)


def test_matching_is_optimal_and_one_to_one():
    logits, boxes, target = problem(0)
    cost = matching_cost(logits, boxes, target["labels"], target["boxes"], MatchCost()).double()
    found = matched(logits, boxes, target)
    for layer, image in itertools.product(range(2), (0, 2)):
        count = int(target["valid"][image].sum())
        table = cost[layer, image, :, :count].numpy()
        best = min(table[list(rows), range(count)].sum() for rows in itertools.permutations(range(6), count))
        own = found[layer, image, :count]
        assert len(set(own.tolist())) == count
        assert table[own.numpy(), range(count)].sum() == pytest.approx(best)


def test_matching_cost_is_the_papers():
    logits, boxes, target = problem(1)
    cost = matching_cost(logits, boxes, target["labels"], target["boxes"], MatchCost())
    p = logits[1, 0].double().softmax(-1)
    for query, place in itertools.product(range(6), range(3)):
        own, wanted = boxes[1, 0, query].double(), target["boxes"][0, place].double()
        giou = generalized_iou(to_xyxy(own), to_xyxy(wanted))
        expected = -p[query, target["labels"][0, place]] + 5 * (own - wanted).abs().sum() - 2 * giou
        assert cost[1, 0, query, place].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_batched_matching_is_that_of_single_images(seed):
    logits, boxes, target = problem(seed, counts=(3, 1, 4, 0))
    together = matched(logits, boxes, target)
    for layer, image in itertools.product(range(2), range(4)):
        alone = {name: value[image : image + 1] for name, value in target.items()}
        own = matched(logits[layer : layer + 1, image : image + 1], boxes[layer : layer + 1, image : image + 1], alone)
        assert (own[0, 0] == together[layer, image]).all()


def test_permuted_targets_give_permuted_matches_and_the_same_loss():
    logits, boxes, target = problem(2, counts=(4, 4))
    order = torch.tensor([2, 0, 3, 1])
    permuted = {name: value[:, order] for name, value in target.items()}
    assert (matched(logits, boxes, permuted) == matched(logits, boxes, target)[:, :, order]).all()
    torch.testing.assert_close(SetLoss()(logits, boxes, permuted)["loss"], SetLoss()(logits, boxes, target)["loss"])


def test_the_order_of_predictions_changes_a_set_loss_by_nothing_and_another_by_its_gap():
    logits, boxes, batch = problem(3)
    assert order_gap(SetLoss(), logits, boxes, batch) < 1e-6
    places = torch.arange(1.0, 7.0)  # of six queries: a loss that looks at places, not at objects

    def by_place(logits, boxes, batch):
        return {"loss": (places * logits[0, 0, :, 0].exp()).sum()}

    weight = logits[0, 0, :, 0].exp()
    expected = abs((places * weight.flip(0)).sum() / (places * weight).sum() - 1)
    assert order_gap(by_place, logits, boxes, batch) == pytest.approx(float(expected), rel=1e-5) and expected > 0.01


@pytest.mark.parametrize("loss", [SetLoss(), SetLoss(focal=True, cost=MatchCost(focal=True))])
def test_no_objects_at_all(loss):
    logits, boxes, target = problem(3, counts=(0, 0))
    logits, boxes = logits.requires_grad_(), boxes.requires_grad_()
    assert (matched(logits, boxes, target) == UNMATCHED).all()
    losses = loss(logits[..., : CLASSES + (not loss.focal)], boxes, target)
    losses["loss"].backward()
    assert losses["l1"] == 0 and losses["giou"] == 0 and torch.isfinite(losses["loss"])
    assert (boxes.grad == 0).all()


def test_more_objects_than_queries_leaves_the_dearest_without_one():
    logits, boxes, target = problem(4, counts=(9,), queries=3, layers=1)
    found = matched(logits, boxes, target)[0, 0]
    assert sorted(found[found != UNMATCHED].tolist()) == [0, 1, 2]
    assert (found == UNMATCHED).sum() == 6
    assert torch.isfinite(SetLoss()(logits, boxes, target)["loss"])
    wanted = classes_of_queries(target["labels"], found[None, None], 3, CLASSES)
    assert (wanted != CLASSES).all()


def test_predictions_that_are_no_numbers_end_the_run():
    logits, boxes, target = problem(5)
    boxes[0, 0, 0] = float("nan")
    with pytest.raises(RunFailure, match="not a number"):
        matched(logits, boxes, target)


def test_auxiliary_losses_add_up():
    logits, boxes, target = problem(6)
    whole = SetLoss()(logits, boxes, target)["loss"]
    parts = sum(SetLoss()(logits[i : i + 1], boxes[i : i + 1], target)["loss"] for i in range(2))
    torch.testing.assert_close(whole, parts)


def test_no_object_weight_is_a_weighted_mean():
    logits, boxes, target = problem(7, counts=(2,), queries=5, layers=1)
    own = matched(logits, boxes, target)[0, 0]
    wanted = np.full(5, CLASSES)
    wanted[own.numpy()] = target["labels"][0].numpy()
    p = logits[0, 0].double().log_softmax(-1).numpy()
    weight = np.where(wanted == CLASSES, 0.3, 1.0)
    expected = -(weight * p[range(5), wanted]).sum() / weight.sum()
    assert SetLoss(no_object=0.3)(logits, boxes, target)["label"].item() == pytest.approx(expected, abs=1e-6)


def test_misspelt_or_negative_weights_of_the_loss():
    with pytest.raises(UserError, match="did you mean 'giou'"):
        SetLoss.of({"goiu": 1.0})
    with pytest.raises(UserError, match="at least 0: l1"):
        SetLoss.of({"l1": -1.0})


def test_positions_do_not_see_the_padding():
    alone = torch.zeros(1, 5, 6, dtype=torch.bool)
    within = torch.ones(1, 9, 8, dtype=torch.bool)
    within[:, :5, :6] = False
    torch.testing.assert_close(sine_positions(alone, 16), sine_positions(within, 16)[:, :5, :6])


def test_points_and_features_have_the_same_waves():
    places = torch.zeros(1, 4, 4, dtype=torch.bool)
    index = (torch.arange(4) + 1) / 4
    grid = torch.stack(torch.meshgrid(index, index, indexing="ij")[::-1], -1)
    torch.testing.assert_close(point_positions(grid, 16), sine_positions(places, 16)[0], atol=1e-4, rtol=0)


def test_attention_is_torchs():
    torch.manual_seed(0)
    mine, theirs = Attention(16, 4).eval(), torch.nn.MultiheadAttention(16, 4, batch_first=True).eval()
    theirs.load_state_dict(mine.state_dict())
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    ignored = torch.zeros(2, 7, dtype=torch.bool)
    ignored[1, 4:] = True
    mine.keep = []
    out = mine(query, key, value, ignored)
    expected, weights = theirs(query, key, value, key_padding_mask=ignored)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(mine.keep[0].mean(1), weights)
    torch.testing.assert_close(mine(query, query, query), theirs(query, query, query)[0])


def test_attentions_start_without_biases_as_torchs_and_the_authors_do():
    """Of nn.MultiheadAttention the biases are 0; of Conditional DETR's own attention that of its output."""
    backbone = {"name": "resnet10t", "frozen_norm": False, "frozen_stages": 0, "options": {"channels": [8, 8, 8, 8]}}
    size = {"width": 16, "heads": 2, "feedforward": 8, "encoder_layers": 1, "decoder_layers": 2, "queries": 3}
    for made in (
        detr.build(2, (1, 2), backbone=backbone, **size),
        conditional_detr.build(2, backbone=backbone, **size),
    ):
        own = {n: p for n, p in made.named_parameters() if n.endswith(("out_proj.bias", "in_proj_bias"))}
        torch_has = nn.MultiheadAttention(16, 2)
        assert not torch_has.out_proj.bias.any() and not torch_has.in_proj_bias.any()
        assert len([n for n in own if "out_proj" in n]) == 5 and not any(p.any() for p in own.values()), own.keys()


def test_backbone_is_torchvisions_resnet50_with_frozen_norms():
    torch.manual_seed(0)
    reference = torchvision.models.resnet50(
        norm_layer=torchvision.ops.FrozenBatchNorm2d, replace_stride_with_dilation=[False, False, True]
    ).eval()
    for module in reference.modules():
        if isinstance(module, torchvision.ops.FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    state = {name: value for name, value in reference.state_dict().items() if not name.startswith("fc.")}
    mine = Backbone("resnet50", output_stride=16).eval()
    missing = mine.body.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and not [k for k in missing.missing_keys if "num_batches" not in k]
    x = torch.randn(1, 3, 64, 96)
    y = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
    y = reference.layer4(reference.layer3(reference.layer2(reference.layer1(y))))
    with torch.no_grad():
        torch.testing.assert_close(mine(x)[-1], y, atol=1e-3, rtol=1e-4)
    trained = {name.split(".")[1] for name, p in mine.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}


PUBLISHED = [  # options, million trainable parameters, GFLOPs
    ({}, 41.3, 86),
    ({"encoder_layers": 0}, 33.4, 76),
    ({"encoder_layers": 3}, 37.4, 81),
    ({"output_stride": 16}, 41.3, 187),
]


@pytest.mark.parametrize(("options", "trained", "gflops"), PUBLISHED)
def test_size_and_cost_are_the_published_ones(options, trained, gflops):
    """The paper's GFLOPs (a multiply-add once) are a mean over images: one width is fitted, four figures follow."""
    from replications.measurement.flops import forward_flops
    from replications.papers.detr.model import build

    with torch.device("meta"):
        model = build(91, range(91), backbone={"name": "resnet50"}, **options).eval()
        image = torch.empty(1, 3, 800, 1130)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert parameters / 1e6 == pytest.approx(trained, abs=0.05)
    if not options:
        assert parameters == 41_302_368  # as the authors' logs print it
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(41.5, abs=0.05)
    assert forward_flops(lambda: model.detect({"image": image})) / 2e9 == pytest.approx(gflops, rel=0.03)


def test_suppression_keeps_the_better_of_two_of_a_class():
    boxes = torch.tensor([[[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.52], [0.1, 0.1, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]]])
    found = Detections(boxes, torch.tensor([[0.6, 0.9, 0.8, -1.0]]), torch.tensor([[0, 0, 1, 0]]))
    assert sorted(suppressed(found, 0.5)[0].tolist()) == [1, 2]


def test_sizes_of_padded_images():
    padding = torch.ones(2, 8, 10, dtype=torch.bool)
    padding[0, :8, :6], padding[1, :3, :10] = False, False
    batch = {"image": torch.zeros(2, 3, 8, 10), "padding": padding}
    assert image_sizes(batch).tolist() == [[8, 6], [3, 10]]


def test_epochs_to_a_level_are_between_validations():
    from replications.records import HistoryPoint

    def point(epoch, ap50):
        values = {"ap": ap50 / 2, "ap50": ap50}
        return HistoryPoint(stage="detector", step=1, epoch=epoch, split="validation", values=values)

    history = [point(1.0, 10.0), point(2.0, 30.0), point(3.0, 50.0)]
    assert learning(history, 3.0, 20.0).metrics == pytest.approx({"epochs_to_level": 1.5, "mean_ap": 15.0})
    assert learning(history, 3.0, 60.0).metrics["epochs_to_level"] == 3.0


def test_boxes_are_exact_where_the_network_is_in_bf16():
    from replications.papers.detr.model import build

    torch.manual_seed(0)
    tiny = {"name": "resnet10t", "frozen_norm": False, "options": {"channels": [8, 8, 8, 8]}}
    small = {"width": 16, "heads": 2, "feedforward": 16, "encoder_layers": 1, "decoder_layers": 1, "queries": 3}
    model = build(2, (1, 2), backbone=tiny, dropout=0.0, **small).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits, boxes = model.predict({"image": torch.randn(1, 3, 64, 64)})
    assert logits.dtype == torch.bfloat16 and boxes.dtype == torch.float32
    assert not torch.equal(boxes, boxes.bfloat16().float())
