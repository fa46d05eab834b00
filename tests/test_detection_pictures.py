"""Pictures of detection: what is drawn, what may be published, and what is said of curves that cross."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from replications.records import Curve
from replications.tasks.base import Look
from replications.tasks.detection_2d.pictures import draw
from replications.tasks.detection_2d.pictures.curves import crossings, query_boxes


class Record:
    def __init__(self, scale):
        x = [0.0, 1.0, 2.0]
        self.curves = {
            "ap_over_epochs": Curve(x_label="epoch", y_label="AP", x=x, y=[scale * v for v in x]),
            "ap_of_layers": Curve(x_label="decoder layer", y_label="AP", x=[1, 2], y=[scale, 2 * scale]),
            "ap_of_layers_with_nms": Curve(x_label="decoder layer", y_label="AP", x=[1, 2], y=[scale, 2 * scale]),
        }
        self.extra = {"classes": ["disc", "square"]}
        self.spec = type("Spec", (), {"data": {"test": "scenes"}})


class Album:
    tier, width = "smoke", 7.0
    addresses = ("paper/set", "paper/boxes", "paper/part")

    def __init__(self, objects=2, files=True):
        rng, self._files = np.random.default_rng(0), files
        self.data = {
            "images": rng.integers(0, 255, (3, 16, 16, 3), np.uint8),
            "image_size": np.full((3, 2), 16),
            "boxes": np.tile(np.array([2.0, 3.0, 9.0, 12.0], np.float32), (3, objects, 1)),
            "labels": np.zeros((3, objects), np.int16),
            "crowd": np.zeros((3, objects), bool),
        }
        boxes = np.sort(rng.random((3, 4, 4)), axis=-1)[..., [0, 1, 2, 3]]
        self.found = {"row": np.arange(3), "boxes": boxes, "scores": rng.random((3, 4)), "labels": np.zeros((3, 4))}
        self.inside = {
            "decoder_attention": rng.random((3, 4, 2, 2)),
            "encoder_attention": rng.random((3, 4, 2, 2)),
            "raw_logits": rng.normal(size=(3, 4, 3)),
            "raw_boxes": boxes,
            "query_boxes": rng.random((3, 4, 4)),
        }

    def role(self, address):
        return "ablation" if address.endswith("part") else "method"

    def look(self, address):
        return Look("#000000", "o", "-")

    def runs(self, address):
        return {0: Record(2.0 if address.endswith("set") else 1.0)}

    def arrays(self, address, seed):
        return self.found | (self.inside if address == "paper/set" else {})

    def kind(self, key):
        return "procedural"

    def open_set(self, key):
        return self.data if self._files else None


def test_all_pictures_are_drawn_and_none_with_an_image_is_published():
    drawn = {picture.name: picture for picture in draw(Album())}
    assert set(drawn) == {
        "convergence", "decoder_layers", "queries", "detections", "decoder_attention", "encoder_attention", "matching",
    }  # fmt: skip
    assert {name for name, picture in drawn.items() if picture.publish} == {"convergence", "decoder_layers", "queries"}
    assert all(isinstance(picture.figure, Figure) and picture.alt and picture.caption for picture in drawn.values())


def test_without_the_set_only_what_needs_no_image_is_drawn():
    assert {picture.name for picture in draw(Album(files=False))} == {"convergence", "decoder_layers", "queries"}


def test_images_without_objects_have_no_points_and_nothing_to_match():
    drawn = {picture.name for picture in draw(Album(objects=0)) if picture.figure}
    assert "detections" in drawn and not drawn & {"encoder_attention", "matching"}


@pytest.mark.parametrize(("late", "said"), [
    ([0.0, 1.0, 9.0], "a/late overtakes a/early at epoch 1."),
    ([0.0, 1.0, 3.0], "a/early is ahead of a/late as long as both were trained."),
])  # fmt: skip
def test_what_is_said_of_curves_that_cross(late, said):
    x = np.array([0.0, 1.0, 2.0])
    assert said in crossings({"a/late": (x, np.array(late)), "a/early": (x, np.array([0.0, 3.0, 5.0]))})


def test_the_boxes_of_queries_stay_small_with_many_images(tmp_path):
    boxes = np.random.default_rng(0).random((1500, 8, 4))
    figure = query_boxes(boxes, 7.0)
    marks = [axes.collections[0].get_offsets() for axes in figure.axes]
    assert [len(points) for points in marks] == [300] * 8
    assert np.allclose(marks[3][7], [boxes[35, 3, [0, 2]].mean(), boxes[35, 3, [1, 3]].mean()]), "each fifth image"
