"""Each vision paper's one idea, against its formula written out: broken on purpose, a test here fails.

`tests/README.md` has the table of what was broken and what failed.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.ops import MultiScaleRoIAlign

from replications.papers.conditional_detr import model as conditional_detr
from replications.papers.deepid.model import ConvNets
from replications.papers.detr import model as detr
from replications.papers.faster_rcnn import model as faster_rcnn
from replications.papers.mae.model import MaskedAutoencoder
from replications.papers.resnet import model as resnet

BACKBONE = {"name": "resnet10t", "frozen_norm": False, "frozen_stages": 0, "options": {"channels": [8, 16, 16, 32]}}
SMALL = {"width": 16, "heads": 2, "feedforward": 24, "encoder_layers": 1, "decoder_layers": 3, "queries": 5}


def randomised(module, std=0.7):
    """Fill every weight in float64, also those that start from zero, so that no part can hide."""
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=std)
    return module.eval()


# MAE


@pytest.mark.parametrize("normalise", [True, False])
def test_mae_is_its_section_3_written_out(normalise, monkeypatch):
    """Visible patches alone are encoded, each with the position of its place; mask tokens fill the hidden places before
    the decoder; the loss is of hidden patches, each normalised by its own mean and unbiased deviation."""
    grid, patch, width, hidden_share = 4, 2, 8, 0.75
    network = MaskedAutoencoder(
        grid * patch, patch=patch, width=width, depth=2, heads=2, decoder={"width": 12, "depth": 1, "heads": 3},
        mask_ratio=hidden_share, normalise_target=normalise,
    )  # fmt: skip
    randomised(network)
    rng = np.random.default_rng(0)
    image, noise = torch.tensor(rng.normal(size=(3, 3, 8, 8))), torch.tensor(rng.random((3, grid**2)))
    monkeypatch.setattr("replications.papers.mae.model.mask_noise", lambda *given: noise)

    losses = []
    for picture, drawn in zip(image, noise, strict=True):
        visible = sorted(range(grid**2), key=lambda place: float(drawn[place]))[: grid**2 // 4]
        tokens, pixels = [], []
        for place in range(grid**2):
            row, column = patch * (place // grid), patch * (place % grid)
            piece = picture[:, row : row + patch, column : column + patch]
            projected = (network.patch_embed.proj.weight * piece).sum((1, 2, 3)) + network.patch_embed.proj.bias
            tokens.append(projected + network.pos_embed[0, 1 + place])
            pixels.append(piece.permute(1, 2, 0).flatten())  # row, column, channel
        seen = torch.stack([network.cls_token[0, 0] + network.pos_embed[0, 0], *(tokens[place] for place in visible)])
        for block in network.blocks:
            seen = block(seen[None])[0]
        seen = network.decoder_embed(network.norm(seen))
        whole = network.mask_token[0, 0].repeat(1 + grid**2, 1)
        whole[0] = seen[0]
        for token, place in zip(seen[1:], visible, strict=True):
            whole[1 + place] = token
        whole = (whole + network.decoder_pos_embed[0])[None]
        for block in network.decoder_blocks:
            whole = block(whole)
        told = network.decoder_pred(network.decoder_norm(whole))[0, 1:]
        for place in set(range(grid**2)) - set(visible):
            target = pixels[place]
            if normalise:
                deviation = (((target - target.mean()) ** 2).sum() / (len(target) - 1) + 1e-6) ** 0.5
                target = (target - target.mean()) / deviation
            losses.append(((told[place] - target) ** 2).mean())
    expected = torch.stack(losses).mean()
    # The loss itself is taken in float32.
    torch.testing.assert_close(network({"image": image})["loss"].double(), expected, rtol=1e-6, atol=1e-6)


# ResNet


def test_a_residual_block_adds_its_input_and_starts_as_its_shortcut():
    """He et al., Eq. 1 and 2: y = ReLU(F(x) + x), with a projection where sizes differ."""
    form = {"architecture": "resnet18", "stem": "small", "blocks": [1, 2, 1, 1], "widths": [8, 8, 16, 16]}
    network = resnet.build(5, 16, resnet=form).double().eval().network
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def normed(y, norm):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return (y - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]

    for block in (network.layer2[0], network.layer2[1]):
        shortcut = x
        if block.downsample is not None:
            shortcut = normed(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
        torch.testing.assert_close(block(x), shortcut.relu(), msg="it starts as its shortcut")
        nn.init.normal_(block.bn2.weight)
        inner = normed(F.conv2d(x, block.conv1.weight, stride=block.conv1.stride, padding=1), block.bn1).relu()
        inner = normed(F.conv2d(inner, block.conv2.weight, padding=1), block.bn2)
        assert inner.abs().max() > 0.1
        torch.testing.assert_close(block(x), (inner + shortcut).relu())


# DeepID


@pytest.mark.parametrize("multi_scale", [True, False])
def test_the_deepid_layer_adds_what_it_sees_of_conv3_and_of_conv4(multi_scale):
    """Sun et al., Eq. 3: y = ReLU(x1 W1 + x2 W2 + b), x1 the third layer after pooling, x2 the fourth."""
    net = randomised(ConvNets(1, 3, (39, 31), multi_scale), std=0.1)
    patch = torch.randn(2, 3, 39, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = patch
    for layer in (net.conv1, net.conv2, net.conv3):
        x = F.max_pool2d(layer(x), 2).relu()
    second = net.conv4(x).relu()
    y = second.flatten(1) @ net.from_conv4.weight[0] + net.from_conv4.bias[0]
    if multi_scale:
        y = y + x.flatten(1) @ net.from_conv3.weight[0]
    torch.testing.assert_close(net(patch)[0], y.relu())


# DETR and Conditional DETR


def made(build, **more):
    torch.manual_seed(0)
    given = {"category_ids": (1, 2, 3)} if build is detr.build else {}
    return build(3, **given, backbone=BACKBONE, **{**SMALL, **more}).eval()


def objects():
    generator = torch.Generator().manual_seed(0)
    centre = 0.3 + 0.4 * torch.rand(2, 2, 2, generator=generator)
    return {
        "image": torch.randn(2, 3, 64, 64, generator=generator),
        "boxes": torch.cat([centre, 0.2 + 0.2 * torch.rand(2, 2, 2, generator=generator)], -1),
        "labels": torch.randint(3, (2, 2), generator=generator),
        "valid": torch.ones(2, 2, dtype=torch.bool),
    }


@pytest.mark.parametrize("build", [detr.build, conditional_detr.build])
def test_the_loss_is_of_every_decoder_layer_unless_the_auxiliary_ones_are_off(build):
    batch, losses = objects(), {}
    for auxiliary in (True, False):
        model = made(build, dropout=0.0, auxiliary=auxiliary)
        with torch.no_grad():
            nn.init.normal_(model.bbox_embed.layers[-1].weight, std=0.1)
            logits, boxes = model.predict(batch)
            each = [float(model.set_loss(logits[i : i + 1], boxes[i : i + 1], batch)["loss"]) for i in range(3)]
            losses[auxiliary] = float(model(batch)["loss"])
        assert len({round(one, 6) for one in each}) == 3
        assert losses[auxiliary] == pytest.approx(sum(each) if auxiliary else each[-1], rel=1e-5)


@pytest.mark.parametrize("build", [detr.build, conditional_detr.build])
def test_queries_see_each_other(build):
    """Section 3.2 of DETR: self-attention of the queries is what keeps two of them from one object."""
    model, batch = made(build), objects()
    with torch.no_grad():
        before = model.predict(batch)[0]
        model.query_embed.weight[0] += 1.0
        after = model.predict(batch)[0]
    assert not torch.allclose(before[:, :, 1:], after[:, :, 1:], atol=1e-5)


def test_conditional_cross_attention_is_its_section_3_written_out():
    """Each head compares content with content and place with place; the place of a query is the encoding of its
    reference point, scaled by the content from the second layer on; boxes are offsets from the point."""
    width, heads, queries, places = 16, 2, 3, 4
    decoder = randomised(conditional_detr.ConditionalDecoder(2, width, heads, 24, 0.0, 20.0)).float()
    generator = torch.Generator().manual_seed(0)
    query, memory, place = (torch.randn(1, n, width, generator=generator) for n in (queries, places, places))

    def encoded(point):
        halves = []
        for coordinate in (point[1], point[0]):  # y first
            waves = []
            for i in range(width // 2):
                angle = 2 * np.pi * coordinate / 20.0 ** (2 * (i // 2) / (width // 2))
                waves.append(angle.sin() if i % 2 == 0 else angle.cos())
            halves += waves
        return torch.stack(halves)

    def attended(q, k, v):
        """One head of the other: ``[queries, c]``, ``[keys, c]``, ``[keys, d]``."""
        return (q @ k.T / q.shape[1] ** 0.5).softmax(-1) @ v

    def by_heads(*tensors):
        return zip(*(t.unflatten(-1, (heads, -1)).unbind(-2) for t in tensors), strict=True)

    point = decoder.ref_point_head(query)[0]
    spot = torch.stack([encoded(one.sigmoid()) for one in point])
    x, outputs = torch.zeros(queries, width), []
    for number, layer in enumerate(decoder.layers):
        scaled = spot if number == 0 else spot * decoder.query_scale(x[None])[0]
        q = layer.sa_qcontent_proj(x) + layer.sa_qpos_proj(query[0])
        k = layer.sa_kcontent_proj(x) + layer.sa_kpos_proj(query[0])
        mixed = [attended(*head) for head in by_heads(q, k, layer.sa_v_proj(x))]
        x = layer.norm1(x + layer.sa_out_proj(torch.cat(mixed, -1)))
        q, k, near = layer.ca_qcontent_proj(x), layer.ca_kcontent_proj(memory[0]), layer.ca_kpos_proj(place[0])
        if number == 0:
            q, k = q + layer.ca_qpos_proj(query[0]), k + near
        at, v = layer.ca_qpos_sine_proj(scaled), layer.ca_v_proj(memory[0])
        mixed = [
            attended(torch.cat([content, where], -1), torch.cat([key, key_place], -1), value)
            for content, where, key, key_place, value in by_heads(q, at, k, near, v)
        ]
        x = layer.norm2(x + layer.ca_out_proj(torch.cat(mixed, -1)))
        x = layer.norm3(x + layer.linear2(layer.linear1(x).relu()))
        outputs.append(decoder.norm(x))
    ours, points = decoder(query, memory, place, None)
    torch.testing.assert_close(points[0], point)
    torch.testing.assert_close(ours[:, 0], torch.stack(outputs), rtol=1e-4, atol=1e-4)


def test_conditional_boxes_are_offsets_from_their_points():
    model, batch = made(conditional_detr.build), objects()
    with torch.no_grad():
        boxes = model.predict(batch)[1]  # the last map of the box head starts at zero
        points = model.transformer.decoder.ref_point_head(model.query_embed.weight).sigmoid()
    torch.testing.assert_close(boxes[..., :2], points.expand(3, 2, -1, -1))
    torch.testing.assert_close(boxes[..., 2:], torch.full((3, 2, 5, 2), 0.5))


# Faster R-CNN


def test_faster_rcnn_is_torchvisions_two_stages():
    """Losses of both stages and detections are those of torchvision's own model around the same layers."""
    torch.manual_seed(0)
    ours = faster_rcnn.build(
        3, backbone=BACKBONE, levels=(1, 2), channels=16, anchor_sizes=((8,), (16,), (24,)), representation=16,
        proposals=20, samples_per_image=16,
    )  # fmt: skip
    inner = ours.detector
    theirs = FasterRCNN(
        inner.backbone, None, min_size=64, max_size=64, image_mean=[0.0] * 3, image_std=[1.0] * 3,
        rpn_anchor_generator=inner.rpn.anchor_generator, rpn_head=inner.rpn.head,
        rpn_pre_nms_top_n_train=40, rpn_post_nms_top_n_train=40, rpn_pre_nms_top_n_test=20, rpn_post_nms_top_n_test=20,
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], output_size=7, sampling_ratio=2),
        box_head=inner.roi_heads.box_head, box_predictor=inner.roi_heads.box_predictor, box_batch_size_per_image=16,
    )  # fmt: skip
    theirs.transform.torch_choice = lambda sizes: sizes[0]  # it would draw a random number for the one size
    batch = objects()
    corners = torch.cat([batch["boxes"][..., :2] - batch["boxes"][..., 2:] / 2,
                         batch["boxes"][..., :2] + batch["boxes"][..., 2:] / 2], -1) * 64  # fmt: skip
    targets = [{"boxes": b, "labels": n + 1} for b, n in zip(corners, batch["labels"], strict=True)]
    torch.manual_seed(1)
    mine = ours.train()(batch)
    torch.manual_seed(1)
    other = theirs.train()(list(batch["image"]), targets)
    assert len(other) == 4 and mine.keys() == {*other, "loss"}
    for name, value in other.items():
        torch.testing.assert_close(mine[name], value.detach())
    torch.testing.assert_close(mine["loss"], sum(other.values()))
    with torch.no_grad():
        found, expected = ours.eval().detect(batch), theirs.eval()(list(batch["image"]))
    for row, one in enumerate(expected):
        count = len(one["scores"])
        assert count > 3
        torch.testing.assert_close(found.boxes[row, :count] * 64, one["boxes"])
        torch.testing.assert_close(found.scores[row, :count], one["scores"])
        assert torch.equal(found.labels[row, :count], one["labels"] - 1)
