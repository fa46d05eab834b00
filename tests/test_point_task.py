"""Point cloud classification: options, data, augmentation, scores, and what a run does with its stages."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from replications import catalogue, running
from replications.datasets.arrays import manifest_digest
from replications.datasets.checksum import digest
from replications.datasets.prepare import prepare
from replications.errors import UserError
from replications.records import HistoryPoint
from replications.tasks.base import find_task
from replications.tasks.point_classification import TASK, conditions
from replications.tasks.point_classification.augment import PointAugment
from replications.tasks.point_classification.data import keep, open_points
from replications.tasks.point_classification.execute import _best_on_test
from replications.tasks.point_classification.metrics import accuracies, by_class, part_scores, shape_ious
from replications.tasks.point_classification.options import AugmentOptions
from replications.tasks.point_classification.stages import TrainedStage
from replications.tasks.run import Evaluation
from replications.training.augment import Draws


def options(**changes):
    return TASK.parse_options({"points": 8, "stages": {"classification": {}}} | changes)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"point": 3}, "did you mean 'points'"),
        ({"stages": {"segmentation": {}}}, "must have 'classification'"),
        ({"stages": {"classification": {"steps": 1, "epochs": 1}}}, "either 'epochs' or 'steps'"),
        ({"augment": {"scale": [2, 1]}}, "two rising factors"),
        ({"kept": [0.01]}, "leaves none of 8 points"),
        ({"kept": [1.5]}, "kept"),
    ],
)
def test_wrong_options_are_named(changes, line):
    with pytest.raises(UserError, match=line):
        options(**changes)


def test_stages_of_a_run_are_those_that_the_method_wants_and_the_tier_has():
    stages = {"classification": {}, "segmentation": {}}
    assert options(stages=stages).run == ("classification",)
    assert options(stages=stages, also=["pretraining", "segmentation"]).run == ("classification", "segmentation")
    every = stages | {"pretraining": {}}
    assert options(stages=every, also=["pretraining"]).run == ("pretraining", "classification")


def test_metrics_of_conditions_have_titles():
    metrics = find_task("point_classification").metrics
    assert metrics["accuracy_keep50"].title == "Accuracy, 50 % of the points"
    assert not metrics["drop_som_noise10"].higher_is_better
    assert "nonsense" not in metrics and "accuracy_" not in metrics
    assert metrics["accuracy_best_on_test"].title == "Best on test"


def draws_for(augment: PointAugment, n: int, seed: int = 0) -> Draws:
    return augment.draw(n, torch.Generator().manual_seed(seed))


def test_augmentation_moves_points_and_what_goes_with_them_alike():
    augment = PointAugment(AugmentOptions(scale=(0.5, 2.0), shift=0.3), 6, moving=("nodes",))
    points = torch.rand(4, 6, 3)
    draws = draws_for(augment, 4)
    found = augment.apply({"points": points, "nodes": points.clone(), "label": torch.arange(4)}, draws)
    torch.testing.assert_close(found["points"], points * draws["scale"] + draws["shift"])
    assert torch.equal(found["points"], found["nodes"])
    assert (draws["scale"] >= 0.5).all() and (draws["scale"] <= 2).all() and (draws["shift"].abs() <= 0.3).all()


def test_dropped_points_become_copies_of_the_first():
    augment = PointAugment(AugmentOptions(dropout=0.875), 50)
    batch = {"points": torch.rand(8, 50, 3), "features": torch.rand(8, 50, 2), "part": torch.randint(9, (8, 50))}
    draws = draws_for(augment, 8)
    found = augment.apply(batch, draws)
    for b, mask in enumerate(draws["dropped"]):
        assert torch.equal(found["points"][b, mask], batch["points"][b, :1].expand(int(mask.sum()), 3))
        assert torch.equal(found["points"][b, ~mask], batch["points"][b, ~mask])
        assert torch.equal(found["part"][b, mask], batch["part"][b, :1].expand(int(mask.sum())))
    assert 0.2 < draws["dropped"].float().mean() < 0.7


def test_keeping_a_share_repeats_the_first_points():
    clouds = {"points": torch.arange(24.0).view(1, 8, 3), "label": torch.tensor([1])}
    half = keep(clouds, 0.5)
    assert torch.equal(half["points"][0, :4], clouds["points"][0, :4])
    assert torch.equal(half["points"][0, 4:], clouds["points"][0, :4])
    assert torch.equal(keep(clouds, 0.01)["points"][0], clouds["points"][0, :1].expand(8, 3))


def test_with_fewer_points_what_is_precomputed_is_computed_of_those_that_are_left():
    points = torch.arange(24.0).view(1, 8, 3)
    stage = SimpleNamespace(
        options=SimpleNamespace(kept=(0.5,), also_on=()),
        model=SimpleNamespace(conditions=dict),
        precompute=lambda points: {"nodes": points.amax(1)},
        test_clouds={"points": points, "label": torch.tensor([0]), "nodes": points.amax(1)},
        test_copies=np.zeros(1, bool),
    )
    found = {name: clouds["nodes"].tolist() for name, clouds, _ in conditions.conditions(stage)}
    assert found == {"keep50": [[9.0, 10.0, 11.0]], "keep50_beforehand": [[21.0, 22.0, 23.0]]}


def test_accuracy_leaves_copies_of_training_clouds_out():
    predicted, label = np.array([0, 1, 1, 0, 0]), np.array([0, 1, 0, 1, 0])
    copy = np.array([False, False, False, False, True])
    found = accuracies(predicted, label, copy)
    assert found == {"accuracy": 50.0, "class_accuracy": 50.0, "accuracy_all": 60.0}
    assert by_class(predicted, label, copy) == [50.0, 50.0]
    assert "accuracy_all" not in accuracies(predicted, label, np.zeros(5, bool))


def test_part_iou_against_a_loop():
    rng = np.random.default_rng(0)
    class_parts = [[0, 1], [2, 3, 4]]
    label = np.array([0, 1, 1])
    part = np.array([rng.choice(class_parts[c], 20) for c in label])
    predicted = np.array([rng.choice(class_parts[c], 20) for c in label])
    part[1], predicted[1] = 2, 2  # parts 3 and 4 are neither there nor predicted: IoU 1
    part[2, :4] = -1
    expected = []
    for s in range(3):
        ious = []
        for number in class_parts[label[s]]:
            a = {i for i in range(20) if predicted[s, i] == number and part[s, i] != -1}
            b = {i for i in range(20) if part[s, i] == number}
            ious.append(len(a & b) / len(a | b) if a | b else 1.0)
        expected.append(np.mean(ious))
    np.testing.assert_allclose(shape_ious(predicted, part, label, class_parts), expected)
    scores = part_scores(predicted, part, label, class_parts, pooled=False)
    assert scores["part_miou"] == pytest.approx(100 * np.mean(expected))
    assert scores["part_class_miou"] == pytest.approx(100 * np.mean([expected[0], np.mean(expected[1:])]))


def test_pooled_iou_is_over_all_points_together():
    part, predicted = np.array([[0, 0, 1, -1], [1, 1, 1, 1]]), np.array([[0, 1, 1, 0], [1, 1, 1, 0]])
    scores = part_scores(predicted, part, np.zeros(2, int), [[0, 1, 2]], pooled=True)
    assert scores["part_miou"] == pytest.approx(100 * np.mean([1 / 3, 4 / 6]))
    assert scores["part_accuracy"] == pytest.approx(100 * 5 / 7)


def test_inflation_is_the_best_test_score_less_the_last():
    history = [
        HistoryPoint(stage=stage, step=i, epoch=i, split="validation", values={"test_accuracy": value})
        for i, (stage, value) in enumerate(
            [("classification", 80.0), ("classification", 85.0), ("classification", 84.0)]
        )
    ]
    evaluation = Evaluation({})
    _best_on_test(None, history, evaluation)
    assert evaluation.metrics == {"accuracy_best_on_test": 85.0, "inflation": 1.0}
    _best_on_test(None, [], empty := Evaluation({}))
    assert empty.metrics == {}


# Data


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for key in ("shapes_smoke", "shapes_gradient_smoke", "digits_points_smoke"):
        prepare(key, root)
    return root


def test_a_set_is_cut_to_its_first_points(data_root):
    found = open_points("shapes_smoke", data_root, 10, normals=True)
    clouds = found.clouds(found.rows("test")[:3])
    assert clouds["points"].shape == (3, 10, 3) and clouds["features"].shape == (3, 10, 3)
    assert found.channels == 3 and clouds["part"].dtype == torch.int64
    torch.testing.assert_close(clouds["features"].norm(dim=-1), torch.ones(3, 10), atol=1e-4, rtol=0)


def test_images_share_one_grid(data_root):
    found = open_points("digits_points_smoke", data_root, 64, normals=False)
    clouds = found.clouds(found.rows("train")[:2])
    assert torch.equal(clouds["points"][0], clouds["points"][1])
    assert clouds["features"].min() >= -1 and clouds["features"].max() <= 1


def test_sets_that_do_not_fit_are_named(data_root):
    with pytest.raises(UserError, match="fewer than the 1000 asked for"):
        open_points("shapes_smoke", data_root, 1000, normals=False)
    with pytest.raises(UserError, match="no normals"):
        open_points("digits_points_smoke", data_root, 64, normals=True)


def test_a_class_that_a_split_lacks_is_named(data_root, tmp_path):
    import shutil

    copied = tmp_path / "data"
    shutil.copytree(data_root, copied)
    (folder,) = (copied / "prepared").glob("shapes_smoke-*")
    split, label = np.load(folder / "split.npy"), np.load(folder / "label.npy")
    meta = json.loads((folder / "set.json").read_text())
    lost = meta["facts"]["classes"][4]
    split[(split == 1) & (label == 4)] = 0
    np.save(folder / "split.npy", split)
    meta["arrays"]["split"]["sha256"] = digest(folder / "split.npy")
    meta["sha256"] = manifest_digest(meta)
    (folder / "set.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=f"no cloud of class '{lost}' in its validation split"):
        open_points("shapes_smoke", copied, 10, normals=False)


# Runs


def context(address, data_root, work, assignments=()):
    spec = catalogue.resolve(address, "smoke", 0, assignments)
    return running.RunContext(spec, torch.device("cpu"), data_root, work)


def test_the_test_split_decides_nothing(data_root, tmp_path):
    """Validation sees the validation split; the test score beside it stands in the record and selects nothing."""
    stage = TrainedStage.of(context("pointnet2/public_protocol", data_root, tmp_path), "classification")
    made = stage.stage()
    assert made.select_metric == "accuracy"
    found = made.validate(stage.model.eval())
    assert set(found) == {"accuracy", "test_accuracy"}
    assert found["accuracy"] == stage.score(stage.validation_clouds)["accuracy"]
    plain = TrainedStage.of(context("pointnet2/ssg", data_root, tmp_path), "classification")
    assert set(plain.stage().validate(plain.model.eval())) == {"accuracy"}


def test_pretraining_hands_its_encoder_over(data_root, tmp_path, monkeypatch):
    from replications.tasks.point_classification import execute

    ran = context("sonet/pretrained", data_root, tmp_path)
    starts = {}
    original = ran.train

    def train(stage):
        starts[stage.name] = {k: v.clone() for k, v in stage.module.encoder.state_dict().items()}
        result = original(stage)
        starts[stage.name + " end"] = {k: v.clone() for k, v in stage.module.encoder.state_dict().items()}
        return result

    monkeypatch.setattr(ran, "train", train)
    evaluation = execute.execute(ran)
    assert list(starts)[::2] == ["pretraining", "classification"]
    assert all(torch.equal(starts["classification"][k], v) for k, v in starts["pretraining end"].items())
    assert {"chamfer_distance", "probe_accuracy", "accuracy"} <= set(evaluation.metrics)


def test_parts_are_chosen_among_those_of_the_class(data_root, tmp_path):
    stage = TrainedStage.of(context("pointnet/pointnet", data_root, tmp_path), "segmentation")
    logits = np.zeros((2, 5, len(stage.data.parts)), np.float32)
    logits[..., -1] = 9  # a part of the last class
    label = np.array([0, len(stage.data.classes) - 1])
    found = stage.parts(logits, label)
    assert set(found[0]) <= set(stage.data.class_parts[0])
    assert (found[1] == len(stage.data.parts) - 1).all()


def test_a_method_without_a_stage_says_so(data_root, tmp_path):
    stage = TrainedStage.of(context("pointnet/pointnet", data_root, tmp_path), "pretraining")
    with pytest.raises(UserError, match="has no stage 'pretraining'"):
        stage.model  # noqa: B018


def test_other_classes_cannot_be_tested_on(data_root, tmp_path):
    from replications.tasks.point_classification.conditions import conditions

    changes = ("data.gradient=digits_points_smoke",)
    stage = TrainedStage.of(context("pointnet/pointnet", data_root, tmp_path, changes), "classification")
    with pytest.raises(UserError, match="have different classes"):
        list(conditions(stage))


def test_train_and_test_sets_must_have_the_same_classes(data_root, tmp_path):
    changes = ("data.test=digits_points_smoke",)
    stage = TrainedStage.of(context("pointnet/pointnet", data_root, tmp_path, changes), "classification")
    with pytest.raises(UserError, match="have different classes"):
        stage.test_data  # noqa: B018
