"""Pictures of image classification: which there are, what they show, and that samples are not published."""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.tasks.base import Look
from replications.tasks.image_classification.pictures import draw

SHARED = {"vit": {}, "decoder": {}}
METRICS = {"accuracy": 60.0, "accuracy_10pct": 30.0, "linear_accuracy": 40.0, "knn_accuracy": 35.0}


def record(pretrained, rate, **options):
    metrics = METRICS | ({"reconstruction_loss": 0.5} if pretrained else {})
    return SimpleNamespace(
        metrics=metrics, extra={"labels": {"10pct": 40, "100pct": 400}, "images_per_second": rate},
        spec=SimpleNamespace(options=SHARED | options),
    )  # fmt: skip


class FakeAlbum:
    tier, width = "mini", 7.4

    def __init__(self):
        self.made = {
            "mae/mae": ("method", [record(True, 900.0, tell_speed=True), record(True, 950.0, tell_speed=True)]),
            "mae/ratio_40": ("ablation", [record(True, 700.0, mask_ratio=0.4)] * 2),
            "mae/block": ("ablation", [record(True, 900.0, mask="block")] * 2),
            "vit/vit": ("method", [record(False, 800.0)] * 2),
        }
        self.addresses = list(self.made)

    def role(self, address):
        return self.made[address][0]

    def look(self, address):
        return Look("#0072B2", "o", "solid")

    def runs(self, address):
        return dict(enumerate(self.made[address][1]))

    def arrays(self, address, seed):
        draws = np.random.default_rng(0)
        arrays = {"picture_image": draws.integers(0, 255, (4, 12, 12, 3), dtype=np.uint8)}
        if address == "vit/vit":
            return arrays | {"picture_attention": draws.random((4, 3, 3)).astype(np.float16)}
        for name in ("50", "75", "90"):
            arrays[f"picture_mask_{name}"] = draws.random((4, 3, 3)) < 0.75
            arrays[f"picture_reconstruction_{name}"] = arrays["picture_image"]
        return arrays


@pytest.fixture(scope="module")
def pictures():
    return {picture.name: picture for picture in draw(FakeAlbum())}


def test_each_picture_is_there_and_only_curves_are_published(pictures):
    published = {name: picture.publish for name, picture in pictures.items()}
    assert published == {
        "reconstructions": False, "mask_ratio": True, "labels": True, "attention": False, "throughput": True,
    }  # fmt: skip


def test_the_mask_ratio_curve_holds_runs_that_differ_in_nothing_else(pictures):
    lines = pictures["mask_ratio"].figure.axes[0].get_lines()
    assert [40.0, 75.0] in [list(line.get_xdata()) for line in lines]


def test_reconstructions_show_original_masked_and_reconstructed_for_each_ratio(pictures):
    titles = [axes.get_title(loc="center") for axes in pictures["reconstructions"].figure.axes[:7]]
    shown = [title for ratio in (50, 75, 90) for title in (f"{ratio} % masked", "reconstructed")]
    assert titles == ["original", *shown]
    assert len(pictures["reconstructions"].figure.axes) == 28


def test_the_label_curve_runs_over_the_numbers_of_labels(pictures):
    line = pictures["labels"].figure.axes[0].get_lines()[0]
    assert list(line.get_xdata()) == [40, 400] and list(line.get_ydata()) == [30.0, 60.0]
