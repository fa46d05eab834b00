"""DETR beside transformers' DETR: on copied weights the same outputs, on random predictions the same losses.

Run with an environment that has transformers; elsewhere they are skipped.
"""

import pytest
import torch
from torch import nn

from replications.layers.detection.criterion import SetLoss
from replications.layers.detection.matcher import UNMATCHED, MatchCost, match, matching_cost
from replications.papers.detr.model import build

transformers = pytest.importorskip("transformers")

BACKBONE = {"name": "resnet10t", "frozen_norm": False, "frozen_stages": 0, "options": {"channels": [8, 16, 16, 32]}}
SIZE = {"width": 32, "heads": 4, "feedforward": 48, "encoder_layers": 2, "decoder_layers": 3, "queries": 7}
CLASSES = 5


class Borrowed(nn.Module):
    """Our backbone in the place of theirs."""

    intermediate_channel_sizes = (32,)

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, image, mask):
        features = self.backbone(image)[-1]
        return [(features, nn.functional.interpolate(mask[None].float(), size=features.shape[-2:]).bool()[0])]


@pytest.fixture(scope="module")
def pair():
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    torch.manual_seed(0)
    mine = build(CLASSES, range(CLASSES), backbone=BACKBONE, dropout=0.0, **SIZE).eval()
    config = DetrConfig(
        backbone_config=ResNetConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 32], out_features=["stage4"]),
        num_queries=7, d_model=32, encoder_layers=2, decoder_layers=3, encoder_ffn_dim=48, decoder_ffn_dim=48,
        encoder_attention_heads=4, decoder_attention_heads=4, num_labels=CLASSES,
    )  # fmt: skip
    theirs = DetrForObjectDetection(config).eval()
    theirs.model.backbone = Borrowed(mine.backbone)
    theirs.load_state_dict(renamed(mine.state_dict(), theirs.state_dict()), strict=True)
    return mine, theirs


def renamed(state, theirs):
    """Our parameters under their names."""
    found = {}
    layer = {
        "norm1": "self_attn_layer_norm", "norm2": "final_layer_norm", "linear1": "mlp.fc1", "linear2": "mlp.fc2",
    }  # fmt: skip
    for name, value in state.items():
        if name.startswith("backbone."):
            found[f"model.backbone.{name}"] = value
            continue
        new = name.replace("transformer.encoder.", "model.encoder.").replace("transformer.decoder.", "model.decoder.")
        new = new.replace("decoder.norm.", "decoder.layernorm.").replace("input_proj", "model.input_projection")
        new = new.replace("query_embed", "model.query_position_embeddings")
        new = new.replace("class_embed", "class_labels_classifier").replace("bbox_embed", "bbox_predictor")
        new = new.replace("multihead_attn", "encoder_attn").replace("out_proj", "o_proj")
        if "decoder.layers" in new:
            new = new.replace("norm3", "final_layer_norm").replace("norm2", "encoder_attn_layer_norm")
        for mine, other in layer.items():
            new = new.replace(f".{mine}.", f".{other}.")
        if "in_proj" in new:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                found[new.replace("in_proj_", f"{part}_proj.")] = piece
        else:
            found[new] = value
    return found


def padded_batch():
    image = torch.randn(2, 3, 96, 128)
    padding = torch.zeros(2, 96, 128, dtype=torch.bool)
    padding[1, 64:], padding[1, :, 90:] = True, True
    return {"image": image.masked_fill(padding[:, None], 0), "padding": padding}


@pytest.mark.parametrize("padded", [False, True])
def test_same_weights_same_logits_and_boxes(pair, padded):
    mine, theirs = pair
    batch = padded_batch()
    if not padded:
        del batch["padding"]
    with torch.no_grad():
        logits, boxes = mine.predict(batch)
        mask = ~batch["padding"] if padded else torch.ones(2, 96, 128, dtype=torch.bool)
        other = theirs(pixel_values=batch["image"], pixel_mask=mask.long())
    torch.testing.assert_close(logits[-1], other.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes[-1], other.pred_boxes, atol=1e-4, rtol=0)


def random_problem(seed, counts=(3, 0, 5), layers=3):
    g = torch.Generator().manual_seed(seed)
    batch, queries, most = len(counts), 7, max(counts)
    logits = torch.randn(layers, batch, queries, CLASSES + 1, generator=g)
    boxes = 0.2 + 0.5 * torch.rand(layers, batch, queries, 4, generator=g)
    target = {
        "boxes": 0.2 + 0.5 * torch.rand(batch, most, 4, generator=g),
        "labels": torch.randint(0, CLASSES, (batch, most), generator=g),
        "valid": torch.arange(most)[None] < torch.tensor(counts)[:, None],
    }
    return logits, boxes, target


def as_theirs(target):
    return [
        {"class_labels": label[valid], "boxes": box[valid]}
        for label, box, valid in zip(target["labels"], target["boxes"], target["valid"], strict=True)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_same_matching(seed):
    from transformers.loss.loss_for_object_detection import HungarianMatcher

    logits, boxes, target = random_problem(seed)
    cost = matching_cost(logits, boxes, target["labels"], target["boxes"], MatchCost())
    mine = match(cost, target["valid"].sum(1))
    matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    for layer in range(3):
        theirs = matcher({"logits": logits[layer], "pred_boxes": boxes[layer]}, as_theirs(target))
        for image, (rows, columns) in enumerate(theirs):
            assert (mine[layer, image, columns] == rows).all()
            assert (mine[layer, image] != UNMATCHED).sum() == len(columns)


@pytest.mark.parametrize("seed", range(4))
def test_same_losses(seed):
    from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

    logits, boxes, target = random_problem(seed)
    mine = SetLoss()(logits, boxes, target)
    criterion = ImageLoss(HungarianMatcher(1, 5, 2), CLASSES, 0.1, ["labels", "boxes"])
    total = torch.zeros(())
    for layer in range(3):
        theirs = criterion({"logits": logits[layer], "pred_boxes": boxes[layer]}, as_theirs(target))
        total = total + theirs["loss_ce"] + 5 * theirs["loss_bbox"] + 2 * theirs["loss_giou"]
    torch.testing.assert_close(mine["loss"], total, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine["label"], theirs["loss_ce"])
    torch.testing.assert_close(mine["l1"], theirs["loss_bbox"])
    torch.testing.assert_close(mine["giou"], theirs["loss_giou"])


def test_conditional_detr_same_weights_same_logits_and_boxes():
    from transformers import ConditionalDetrConfig, ConditionalDetrForObjectDetection, ResNetConfig

    from replications.papers.conditional_detr.model import build as build_conditional

    torch.manual_seed(0)
    mine = build_conditional(CLASSES, backbone=BACKBONE, dropout=0.0, **SIZE).eval()
    nn.init.normal_(mine.bbox_embed.layers[-1].weight, std=0.1)  # it starts at zero, which would hide the rest
    config = ConditionalDetrConfig(
        backbone_config=ResNetConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 32], out_features=["stage4"]),
        num_queries=7, d_model=32, encoder_layers=2, decoder_layers=3, encoder_ffn_dim=48, decoder_ffn_dim=48,
        encoder_attention_heads=4, decoder_attention_heads=4, num_labels=CLASSES,
    )  # fmt: skip
    theirs = ConditionalDetrForObjectDetection(config).eval()
    theirs.model.backbone = Borrowed(mine.backbone)
    state = {}
    for name, value in mine.state_dict().items():
        for kind, attention in (("sa", "self_attn"), ("ca", "encoder_attn")):
            name = name.replace(f".{kind}_qpos_sine_proj", f".{attention}.q_pos_sine_proj")
            for role in "qk":
                name = name.replace(f".{kind}_{role}content_proj", f".{attention}.{role}_content_proj")
                name = name.replace(f".{kind}_{role}pos_proj", f".{attention}.{role}_pos_proj")
            name = name.replace(f".{kind}_v_proj", f".{attention}.v_proj")
            name = name.replace(f".{kind}_out_proj", f".{attention}.o_proj")
        state[name] = value
    theirs.load_state_dict(renamed(state, theirs.state_dict()), strict=True)
    batch = padded_batch()
    with torch.no_grad():
        logits, boxes = mine.predict(batch)
        other = theirs(pixel_values=batch["image"], pixel_mask=(~batch["padding"]).long())
    torch.testing.assert_close(logits[-1], other.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes[-1], other.pred_boxes, atol=1e-4, rtol=0)


def test_mask_head_same_weights_same_masks():
    from transformers.models.detr.modeling_detr import DetrMaskHeadSmallConv, DetrMHAttentionMap

    from replications.papers.detr.masks import AttentionMaps, MaskHead

    torch.manual_seed(0)
    width, heads, finer = 64, 8, (24, 16, 8)
    attention, head = AttentionMaps(width, heads), MaskHead(width, heads, finer)
    their_attention, their_head = (
        DetrMHAttentionMap(width, heads),
        DetrMaskHeadSmallConv(width + heads, list(finer), width),
    )
    their_attention.load_state_dict({n.replace("_linear", "_proj"): v for n, v in attention.state_dict().items()})
    state = {}
    for name, value in head.state_dict().items():
        layer, _, kind = name.partition(".")
        if layer == "out_lay":
            new = f"output_conv.{kind}"
        elif layer.startswith("adapter"):
            new = f"fpn_stages.{int(layer[-1]) - 1}.fpn_adapter.{kind}"
        else:
            index, part = int(layer[-1]), "conv" if layer.startswith("lay") else "norm"
            new = f"conv{index}.{part}.{kind}" if index < 3 else f"fpn_stages.{index - 3}.refine.{part}.{kind}"
        state[new] = value
    their_head.load_state_dict(state)
    query, memory, padding = torch.randn(2, 5, width), torch.randn(2, 6, width), torch.zeros(2, 2, 3, dtype=torch.bool)
    levels = [torch.randn(2, c, 2 * 2**i, 3 * 2**i) for i, c in enumerate(finer, start=1)]
    features = torch.randn(2, width, 2, 3)
    with torch.no_grad():
        maps = attention(query, memory, padding)
        theirs = their_attention(query, memory.transpose(1, 2).unflatten(-1, (2, 3)))
        torch.testing.assert_close(maps, theirs)
        masks = their_head(features, maps, levels)
        image = torch.arange(2).repeat_interleave(5)
        torch.testing.assert_close(head(features, maps.flatten(0, 1), levels, image).flatten(), masks.flatten())
