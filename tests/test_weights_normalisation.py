"""Weights files of the authors see pixels as their code normalises them: the same outputs from the same bytes."""

import functools

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn

from replications import catalogue
from replications.cli import main
from replications.datasets.arrays import open_set
from replications.datasets.prepare import prepare
from replications.papers.mae.model import MaskedAutoencoder, MaskedAutoencoderClassifier, build
from replications.tasks.data import SPLITS
from replications.tasks.detection_2d.augment import normalised
from replications.tasks.detection_2d.files import padded

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CLASSES, SIZE = 10, 16


def as_the_authors(pixels):
    """uint8 ``[n, h, w, 3]`` to float64 ``[n, 3, h, w]``."""
    return ((pixels.astype(np.float64) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)


def test_every_reader_of_weights_is_held_here():
    readers = {f"{p.key}/{name}" for p in catalogue.papers().values() for name, m in p.methods.items() if m.weights}
    assert readers == {"mae/mae", "detr/detr"}, "test what a new reader's file expects of its pixels"


def evaluated(monkeypatch, tmp_path, module, spied, method):
    """Write a module's weights, evaluate them on digits, and return (first images, outputs) of `spied.method`."""
    seen = []
    plain = getattr(spied, method)

    def spy(self, image, *rest, **more):
        found = plain(self, image, *rest, **more)
        seen.append((image, found))
        return found

    monkeypatch.setattr(spied, method, spy)
    torch.save({"model": module.state_dict()}, tmp_path / "weights.pth")
    prepare("digits_16", tmp_path / "data")
    command = f"evaluate mae --weights {tmp_path}/weights.pth --tier smoke --data-root {tmp_path}/data --device cpu"
    assert main(f"{command} --work {tmp_path}/work --results {tmp_path}/out".split()) == 0
    arrays = open_set("digits_16", tmp_path / "data").arrays
    return seen, np.asarray(arrays["images"])[np.asarray(arrays["split"]) == SPLITS.index("test")]


def made():
    torch.manual_seed(0)
    tier = catalogue.task_tiers("image_classification")["smoke"].options
    module = build(CLASSES, SIZE, vit=tier["vit"], decoder=tier["decoder"])
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    return module


def test_an_official_mae_classifier_gives_the_official_logits(monkeypatch, tmp_path):
    module = made()
    seen, pixels = evaluated(monkeypatch, tmp_path, module, MaskedAutoencoderClassifier, "logits")
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=SIZE, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=CLASSES, global_pool="avg",
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    theirs.load_state_dict(module.state_dict())
    image, ours = seen[0]
    expected = theirs.double().eval()(torch.from_numpy(as_the_authors(pixels[: len(image)])))
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-4)


def test_an_official_autoencoder_tells_pixels_of_the_official_scale(monkeypatch, tmp_path):
    """Its targets are normalised pixels, so the scale of the channels counts there too."""
    pretrainer = made().pretrainer()
    seen, pixels = evaluated(monkeypatch, tmp_path, pretrainer, MaskedAutoencoder, "reconstruct")
    image = torch.cat([image for image, _ in seen])
    step = -(-len(pixels) // 1000)
    torch.testing.assert_close(image.double(), torch.from_numpy(as_the_authors(pixels[::step])), rtol=0, atol=1e-6)


def test_detection_normalises_pixels_as_the_files_expect_and_pads_with_zeros():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), np.uint8)
    expected = torch.from_numpy(as_the_authors(pixels))
    image = normalised({"image": torch.from_numpy(pixels)})["image"]
    torch.testing.assert_close(image.double(), expected, rtol=0, atol=1e-6)
    none = np.zeros((0, 4)), np.zeros(0, np.int64)
    samples = [(pixels[0], *none), (np.asarray(Image.fromarray(pixels[1]).crop((0, 0, 5, 4))), *none)]
    batch = padded(samples, torch.device("cpu"))["image"].double()
    torch.testing.assert_close(batch[0], expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(batch[1, :, :4, :5], expected[1, :, :4, :5], rtol=0, atol=1e-6)
    assert not batch[1, :, 4:].any() and not batch[1, :, :, 5:].any()
