"""Weights files: the authors' layout is read and judged, another one is refused in a line; starting from weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from replications import catalogue, running
from replications.datasets import weights as weights_set
from replications.datasets.prepare import prepare
from replications.errors import UserError
from replications.layers.detection import weights
from replications.papers.detr.masks import build as build_masked
from replications.papers.detr.model import build
from replications.papers.detr.official import load, renamed
from replications.papers.faster_rcnn.model import build as build_faster
from replications.tasks.detection_2d.options import DetectionOptions
from replications.tasks.detection_2d.stages import Setup

ROOT = Path(__file__).parent.parent
BACKBONE = {"name": "resnet10t", "frozen_norm": False, "frozen_stages": 0, "options": {"channels": [8, 16, 16, 32]}}
SMALL = {"width": 32, "heads": 4, "feedforward": 48, "encoder_layers": 1, "decoder_layers": 2, "queries": 5}


def detr(classes=3, **more):
    torch.manual_seed(1)
    return build(classes, tuple(range(1, classes + 1)), backbone=BACKBONE, **{**SMALL, **more}).eval()


def official(model, path, prefix="backbone.0.body."):
    """Write a model's weights in the layout of the authors' code."""
    state = {name.replace("backbone.body.", prefix): value for name, value in model.state_dict().items()}
    torch.save({"model": {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}, "epoch": 499}, path)
    return path


def batch():
    return {"image": torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))}


def test_the_official_layout_gives_the_same_detections(tmp_path):
    model = detr()
    path = official(model, tmp_path / "detr.pth")
    torch.manual_seed(2)
    other = build(3, (1, 2, 3), backbone=BACKBONE, **SMALL).eval()
    load(other, path)
    one, two = model.detect(batch()), other.detect(batch())
    assert torch.equal(one.boxes, two.boxes) and torch.equal(one.scores, two.scores)


def test_a_coco_head_gives_the_categories_that_are_used(tmp_path):
    """The authors' head counts category ids: 91 outputs and "no object", of which 80 are in use."""
    ids = (1, 3, 6)
    whole = detr(7)  # ids 0 to 6
    small = build(3, ids, backbone=BACKBONE, **SMALL).eval()
    load(small, official(whole, tmp_path / "coco.pth"))
    with torch.no_grad():
        picked = whole.predict(batch())[0][..., [*ids, 7]]
        torch.testing.assert_close(small.predict(batch())[0], picked)


def refused(model, path, match):
    with pytest.raises(UserError, match=match) as error:
        load(model, path)
    assert "\n" not in str(error.value)


def test_other_layouts_are_refused_in_a_line(tmp_path):
    model, path = detr(), tmp_path / "file.pth"
    path.write_bytes(b"no weights")
    refused(model, path, "cannot be read as a file of weights")
    torch.save({"model": [1, 2]}, path)
    refused(model, path, "holds no weights by name")
    torch.save({"model": {"conv1.weight": torch.zeros(1)}}, path)
    refused(model, path, "not in the layout of the official DETR code")
    refused(model, official(detr(encoder_layers=2), path), "encoder.layers.1.* is not a parameter of this model")
    refused(model, official(detr(decoder_layers=1), path), "decoder.layers.1.* is missing")
    refused(model, official(detr(width=48), path), r"has shape \[\d+.*\], this model's has")
    refused(model, official(detr(classes=5), path), "class_embed.weight' has shape")
    masked = build_masked(3, (1, 2, 3), backbone=BACKBONE, mask_levels=[3], **SMALL)
    torch.save(
        {"model": {n.replace("backbone.body", "backbone.0.body"): v for n, v in masked.state_dict().items()}}, path
    )
    refused(model, path, "has a mask head")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    prepare("scenes_smoke", root)
    return root


def test_evaluate_reads_and_judges_an_official_file(data_root, tmp_path):
    spec = catalogue.resolve("detr/detr", "smoke", 0)
    context = running.RunContext(spec, torch.device("cpu"), data_root, tmp_path)
    model = context.build("detector", num_classes=3, category_ids=(1, 2, 3))
    path = official(model, tmp_path / "detr.pth")
    command = [sys.executable, "-m", "replications", "evaluate", "detr", "--tier", "smoke", "--weights", str(path)]
    folders = ["--data-root", str(data_root), "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    done = subprocess.run([*command, *folders, "--device", "cpu"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "AP50" in done.stdout
    (record,) = (tmp_path / "results").rglob("run.json")
    assert json.loads(record.read_text())["extra"]["weights"]["file"] == "detr.pth"
    path.write_bytes(b"nothing")
    done = subprocess.run([*command, *folders, "--device", "cpu"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "detr.pth" in done.stderr


def as_set(monkeypatch, sets):
    arrays = {key: {n: torch.as_tensor(v) for n, v in state.items()} for key, state in sets.items()}
    monkeypatch.setattr(weights, "_read", lambda key, root: dict(arrays[key]))


def test_finetuning_takes_all_but_the_class_head(monkeypatch, tmp_path):
    coco, cells = detr(7), detr(2)
    state = torch.load(official(coco, tmp_path / "coco.pth"), weights_only=True)["model"]
    as_set(monkeypatch, {"coco": state})
    before = cells.class_embed.weight.clone()
    cells.category_ids = (1, 2)
    weights.load_initial(cells, {"train": "x", "checkpoint": "coco"}, tmp_path)
    assert torch.equal(cells.class_embed.weight, before)
    assert torch.equal(cells.query_embed.weight, coco.query_embed.weight)
    assert torch.equal(cells.backbone.body.conv1[0].weight, coco.backbone.body.conv1[0].weight)
    as_set(monkeypatch, {"coco": {n: v for n, v in state.items() if "query_embed" not in n}})
    with pytest.raises(UserError, match=r"'query_embed\.weight' is missing"):
        weights.load_initial(cells, {"checkpoint": "coco"}, tmp_path)


def test_a_backbone_fills_every_detector(monkeypatch, tmp_path):
    trained = detr().backbone.body.state_dict()
    as_set(monkeypatch, {"imagenet": {**trained, "fc.weight": torch.zeros(1000, 32)}})
    torch.manual_seed(9)
    faster = build_faster(3, backbone=BACKBONE, levels=[1, 2, 3, 4], channels=16)
    other = build(3, (1, 2, 3), backbone=BACKBONE, **SMALL)
    for model in (faster, other):
        weights.load_initial(model, {"backbone": "imagenet"}, tmp_path)
        own = model.backbone_body().state_dict()
        assert all(torch.equal(own[name], trained[name]) for name in trained)


@pytest.mark.parametrize("exclude", [False, True])
def test_the_backbones_own_rate_leaves_weight_decay_as_the_recipe_has_it(exclude):
    model = detr()
    recipe = catalogue.resolve("detr/detr", "mini", 0).recipe
    recipe = recipe.model_copy(update={"optimizer_options": {"filter_bias_and_bn": exclude}})
    groups = Setup(None, DetectionOptions(backbone_lr=0.1), None, None).parameter_groups(model, recipe)
    given = {id(p): (group.get("lr", recipe.lr), group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(given) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        rate = 1e-4 if name.startswith("backbone.") else 1e-3
        decay = 0.0 if exclude and parameter.ndim < 2 else 1e-4
        assert given[id(parameter)] == pytest.approx((rate, decay)), name


def test_weights_become_a_set_and_come_back(tmp_path):
    path, target = tmp_path / "w.pth", tmp_path / "set"
    target.mkdir()
    torch.save({"model": {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(3)}}, path)
    assert weights_set.prepare(target, {"key": "model"}, {"weights": path}, 1) == {"parameters": 9}
    assert np.load(target / "a.weight.npy").shape == (2, 3)
    with pytest.raises(UserError, match="holds no weights by name"):
        weights_set.prepare(target, {"key": "other"}, {"weights": path}, 1)


def test_the_mask_head_learns_masks_of_matched_queries():
    from replications.papers.detr.masks import mask_losses

    torch.manual_seed(0)
    masks = torch.zeros(1, 3, 4, 4, requires_grad=True)
    targets = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    targets[0, 0, :4] = True
    focal, dice = mask_losses(lambda image, query: masks[image, query], targets, torch.tensor([[2, -1]]))
    assert focal.item() == pytest.approx(0.25 * np.log(2) * (0.25 + 0.75) / 2, rel=1e-5)
    assert dice.item() == pytest.approx(1 - (2 * 16 + 1) / (32 + 32 + 1), rel=1e-5)
    (focal + dice).backward()
    assert masks.grad[0, 2].abs().min() > 0 and (masks.grad[0, :2] == 0).all()


def test_training_computes_masks_of_matched_queries_as_detection_computes_all():
    torch.manual_seed(0)
    tiny = {"name": "resnet10t", "frozen_norm": False, "options": {"channels": [8, 8, 8, 8]}}
    small = {"width": 16, "heads": 2, "feedforward": 16, "encoder_layers": 1, "decoder_layers": 1, "queries": 5}
    model = build_masked(3, range(3), backbone=tiny, level=2, mask_levels=[1], dropout=0.0, **small)
    model.eval()  # batch norm: the same numbers in both
    batch = {
        "image": torch.randn(2, 3, 32, 32), "boxes": torch.rand(2, 2, 4) * 0.4 + 0.2,
        "labels": torch.tensor([[0, 2], [1, 0]]), "valid": torch.tensor([[True, True], [True, False]]),
        "masks": torch.rand(2, 2, 32, 32) > 0.5,
    }  # fmt: skip
    seen, attention = [], []
    model.mask_head.register_forward_hook(lambda head, arguments, found: seen.append((arguments, found)))
    model.bbox_attention.register_forward_hook(lambda module, arguments, found: attention.append(found))
    model(batch)["loss"].backward()
    (_, maps, _, image), trained = seen.pop()
    assert image.tolist() == [0, 0, 1]  # three objects, ten queries
    assert model.mask_head.lay1.weight.grad.abs().sum() > 0
    with torch.no_grad():
        every = model.detect(batch).masks
    (_, all_maps, _, images), _ = seen.pop()
    assert torch.equal(all_maps, attention[-1].flatten(0, 1)) and images.tolist() == [0] * 5 + [1] * 5
    for index, own, mask in zip(image.tolist(), maps, trained, strict=True):
        query = next(q for q in range(5) if torch.equal(all_maps[5 * index + q], own))
        larger = torch.nn.functional.interpolate(mask[None, None], size=(32, 32), mode="bilinear")[0, 0]
        torch.testing.assert_close(every[index, query], larger)
    nothing = batch | {"valid": torch.zeros(2, 2, dtype=torch.bool)}
    out = model(nothing)
    assert out["mask"] == out["dice"] == 0
    model.zero_grad()
    out["loss"].backward()
    assert model.mask_head.out_lay.weight.grad is not None  # all parameters take part, as several GPUs need


def test_official_names_of_the_masked_model():
    """As in the authors' DETRsegm with R50: three adapters, five convolutions before the last."""
    with torch.device("meta"):
        model = build_masked(250, range(250), backbone={"name": "resnet50"})
    names = {name.rpartition(".")[0]: list(p.shape) for name, p in model.named_parameters() if name.endswith("weight")}
    head = {name: shape[:2] for name, shape in names.items() if name.startswith("mask_head") and len(shape) == 4}
    assert head == {
        "mask_head.lay1": [264, 264], "mask_head.lay2": [128, 264], "mask_head.lay3": [64, 128],
        "mask_head.lay4": [32, 64], "mask_head.lay5": [16, 32], "mask_head.out_lay": [1, 16],
        "mask_head.adapter1": [128, 1024], "mask_head.adapter2": [64, 512], "mask_head.adapter3": [32, 256],
    }  # fmt: skip
    assert {"bbox_attention.q_linear", "bbox_attention.k_linear"} <= set(names)


def test_names_without_the_official_prefix_are_refused():
    with pytest.raises(UserError, match="official DETR code"):
        renamed({"model.backbone.conv1.weight": torch.zeros(1)}, (1,), 2)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "", ".", "..", ".x", "a\0b", "x" * 300, "a\nb", 3])
def test_a_parameters_name_stays_in_the_sets_folder(tmp_path, name):
    torch.save({"good": torch.zeros(1), name: torch.zeros(1)}, tmp_path / "w.pth")
    target = tmp_path / "deep" / "set"
    target.mkdir(parents=True)
    with pytest.raises(UserError, match="is not the name of a parameter") as told:
        weights_set.prepare(target, {}, {"weights": tmp_path / "w.pth"}, 1)
    assert "\n" not in str(told.value) and list(target.iterdir()) == []
