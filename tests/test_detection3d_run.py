"""A run of 3-D detection: what it measures beside AP, what it refuses, and its pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from replications import catalogue, running
from replications.datasets.prepare import prepare
from replications.errors import UserError
from replications.records import run_path
from replications.tasks.base import Look
from replications.tasks.detection_3d import TASK, pictures
from replications.tasks.detection_3d.evaluation import Detections, Truth, evaluate
from replications.tasks.detection_3d.execute import Found, Run, detect, vote_metrics
from replications.tasks.detection_3d.scores import mean_curve, metrics_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    prepare("rooms_smoke", root)
    return root


def context(data_root, *assignments, address="votenet/votenet"):
    return running.RunContext(catalogue.resolve(address, "smoke", 0, assignments), CPU, data_root, data_root)


def test_more_points_than_the_set_stores_are_refused(data_root):
    with pytest.raises(UserError, match="stores 128 points a scene, fewer than the task option points 500"):
        Run.of(context(data_root, "task.points=500"))


def test_a_tier_without_test_data_is_refused(data_root):
    spec = catalogue.resolve("votenet/votenet", "smoke", 0)
    spec = spec.model_copy(update={"data": {"train": "rooms_smoke"}})
    with pytest.raises(UserError, match="no data set for 'test'"):
        Run.of(running.RunContext(spec, CPU, data_root, data_root))


def test_with_fewer_points_training_draws_them_and_the_network_samples(data_root):
    made = Run.of(context(data_root, "task.points=100"))
    assert made.model.backbone.sampled == 0
    one, other = (made.stage().batches.batch(step)["points"] for step in (0, 1))
    assert one.shape == (4, 100, 3) and not torch.equal(one, other)
    assert Run.of(context(data_root)).model.backbone.sampled == 64


def test_the_number_of_proposals_and_their_sampling_are_those_asked_for(data_root):
    made = Run.of(context(data_root))
    rows = made.test.rows("test")
    ways = {"a": ("seeds", None), "b": ("seeds", 4), "c": ("votes", 16)}
    found = detect(made, made.model.eval(), made.test, rows, ways)
    assert [found[name].detections.boxes.shape[1] for name in "abc"] == [8, 4, 16]
    assert np.array_equal(found["a"].seeds, found["c"].seeds)


def boxes(*x):
    return np.array([[value, 0, 0, 1, 1, 1, 0.0] for value in x])


def test_slope_and_halves_of_a_case_computed_by_hand():
    # Three classes at distances 0.1, 0.2, 0.6 with AP 0, 100, 100; one object each.
    truth = Truth(boxes(0, 5, 9)[None], np.array([[0, 1, 2]]))
    scores = np.eye(3)[None, 1:] * 0.9
    results = evaluate(Detections(boxes(5, 9)[None], scores, np.ones((1, 2), bool)), truth, 3)
    distance = np.array([[0.1, 0.2, 0.6]])
    metrics = metrics_of(results, distance, truth)
    assert metrics["ap25_distance_slope"] == pytest.approx(np.polyfit([0.1, 0.2, 0.6], [0, 100, 100], 1)[0])
    assert metrics["recall_far_less_near"] == pytest.approx(100 - 50)
    assert metrics["mAP25"] == pytest.approx(200 / 3)


def test_distance_of_seeds_and_votes_is_that_to_their_own_object():
    truth = Truth(boxes(0, 10)[None], np.array([[0, 1]]))
    inside = np.array([[[-1, -1], [1, -1], [0, 1]]])
    seeds = np.array([[[99.0, 0, 0], [7.0, 0, 0], [9.0, 0, 0]]])
    votes = np.array([[[0.0, 0, 0], [10.5, 0, 0], [10.0, 0, 0]]])
    detections = Detections(np.zeros((1, 1, 7)), np.zeros((1, 1, 2)), np.zeros((1, 1), bool))
    found = Found(detections, seeds, votes, np.array([[0, 1, 2]]), 1.0)
    metrics = vote_metrics(found, inside, truth)
    assert metrics == {"vote_distance_before": pytest.approx(2.0), "vote_distance_after": pytest.approx(0.25)}


def test_the_curve_has_the_best_precision_at_each_recall():
    truth = Truth(boxes(0, 5)[None], np.array([[0, 0]]))
    found = Detections(boxes(0, 2, 5)[None], np.array([[[0.9], [0.8], [0.7]]]), np.ones((1, 3), bool))
    curve = mean_curve(evaluate(found, truth, 1)[0.25], 0.25)
    at = dict(zip(np.round(curve.x, 2), curve.y, strict=True))
    assert at[0.5] == 1 and at[0.51] == pytest.approx(2 / 3) and at[1.0] == pytest.approx(2 / 3)


def test_metrics_that_a_factor_or_a_sampling_names():
    assert "2 times" in TASK.metrics["mAP25_x2"].description and "0.5" in TASK.metrics["mAP25_x0p5"].title
    assert "votes" in TASK.metrics["mAP25_votes"].title
    with pytest.raises(KeyError):
        TASK.metrics["mAP25_x"]


@pytest.mark.parametrize("detected", [True, False])
def test_pictures_are_drawn_also_where_nothing_was_found(data_root, tmp_path, detected):
    spec = catalogue.resolve("votenet/votenet", "smoke", 0)
    record = running.execute(spec, data_root=data_root, work_root=tmp_path / "w", results=tmp_path / "r", device=CPU)
    assert record.metrics["mAP25_seeds"] == record.metrics["mAP25"] and "mAP25_votes" in record.metrics
    with np.load(run_path(tmp_path / "r", "votenet", "votenet", 0).with_name("arrays.npz")) as stored:
        arrays = dict(stored)
    if detected:
        arrays["detected_scene"] = np.zeros(2, np.int32)
        arrays["detected_boxes"] = arrays["true_boxes"][0, :2]
        arrays["detected_scores"] = np.full((2, 3), 0.9, np.float32)
    album = SimpleNamespace(
        width=7.0,
        addresses=["votenet/votenet", "boxnet/boxnet"],
        role=lambda address: "baseline" if address.startswith("box") else "method",
        runs=lambda address: {0: record},
        arrays=lambda address, seed: arrays,
        look=lambda address: Look("#000000", "o", "solid"),
    )
    drawn = {picture.name: picture for picture in pictures.draw(album)}
    assert set(drawn) == {"rooms", "gain", "precision_recall"}
    assert all(isinstance(picture.figure, Figure) for picture in drawn.values())
    assert not drawn["rooms"].publish and drawn["gain"].publish
