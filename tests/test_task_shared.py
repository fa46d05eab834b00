"""What all tasks share: sets by role, splits, changed recipes, predictions in parts, the precision of a test."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from replications.errors import UserError
from replications.spec import Recipe
from replications.tasks import data
from replications.tasks.data import Splits, ensure_alike, open_prepared, open_train_and_test
from replications.tasks.run import Evaluation, changed_recipe, chunks, number_name
from replications.training.batches import split_batch
from replications.training.determinism import scoring
from replications.training.stage import Workload
from replications.training.workers import DeviceBatches, WorkerBatches, resident_or_read

RECIPE = Recipe(batch_size=8, epochs=2, lr=0.1, optimizer_options={"betas": [0.9, 0.95], "eps": 1e-6})


class Toy(Splits):
    def __init__(self, key, classes=("a", "b"), split=(0, 2, 0, -1)):
        self.key, self.classes, self.split = key, classes, np.array(split, np.int8)


def context(**roles):
    return SimpleNamespace(spec=SimpleNamespace(task="toys", data=roles), data_root="root")


def test_the_sets_of_a_run_are_opened_by_role_and_once_where_both_are_one():
    opened = []

    def open_one(key, root):
        opened.append((key, root))
        return Toy(key)

    train, test = open_train_and_test(context(train="x", test="x"), open_one)
    assert train is test and opened == [("x", "root")]
    train, test = open_train_and_test(context(train="x", test="y"), open_one, alike=("classes",))
    assert (train.key, test.key) == ("x", "y")


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_role_without_a_set_is_one_line(missing):
    roles = {role: "x" for role in ("train", "test") if role != missing}
    with pytest.raises(UserError, match=f"^toys: the tier names no data set for '{missing}'$"):
        open_train_and_test(context(**roles), lambda key, root: Toy(key))


def test_sets_that_do_not_fit_each_other_are_one_line():
    with pytest.raises(UserError, match=r"^data sets 'x' and 'y' have different classes$"):
        ensure_alike(Toy("x"), Toy("y", classes=("a",)), ("classes",))


def test_a_set_of_another_kind_is_one_line(monkeypatch):
    monkeypatch.setattr(data, "open_set", lambda key, root: SimpleNamespace(arrays={"points": 1}))
    assert open_prepared("x", "root", "clouds", ("points",)).arrays == {"points": 1}
    with pytest.raises(UserError, match=r"^data set 'x' is not a set of clouds: it has no 'label'$"):
        open_prepared("x", "root", "clouds", ("points", "label"))


def test_rows_of_a_split():
    toy = Toy("x")
    assert toy.rows("train").tolist() == [0, 2] and toy.rows("test").tolist() == [1]
    assert toy.rows("validation").tolist() == []
    with pytest.raises(UserError, match="'x' has nothing in its split 'validation'"):
        toy.rows("validation", needed=True)


def test_a_changed_recipe_merges_nested_options_and_has_one_length():
    found = changed_recipe(RECIPE, {"steps": 5, "optimizer_options": {"eps": 1e-8}}, "stage 'x'")
    assert (found.steps, found.epochs, found.batch_size, found.lr) == (5, None, 8, 0.1)
    assert found.optimizer_options == {"betas": [0.9, 0.95], "eps": 1e-8}
    assert changed_recipe(RECIPE, {}, "x") == RECIPE
    assert changed_recipe(RECIPE, {"lr": 0.5}, "x").epochs == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batchsize": 4}, "^stage 'x': recipe: batchsize: unknown key .did you mean 'batch_size'"),
        ({"lr": -1.0}, "^stage 'x': recipe: lr: "),
        ({"steps": 3, "epochs": 1}, "^stage 'x': recipe: give either 'epochs' or 'steps'$"),
    ],
)
def test_a_change_that_no_recipe_has_is_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        changed_recipe(RECIPE, changes, "stage 'x'")


def test_predictions_go_in_parts_in_order():
    assert [part.tolist() for part in chunks(np.arange(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks(np.arange(0), 3)) == []
    batch = {"a": torch.arange(5), "b": torch.arange(10).view(5, 2)}
    parts = list(split_batch(batch, 2))
    assert [len(part["a"]) for part in parts] == [2, 2, 1]
    assert all(torch.equal(torch.cat([part[name] for part in parts]), batch[name]) for name in batch)
    assert [number_name(value) for value in (4.0, 0.5, 2)] == ["4", "0p5", "2"]


def test_a_test_is_in_the_precision_of_its_training():
    before = torch.get_float32_matmul_precision()
    with scoring("bf16", torch.device("cpu")):
        assert not torch.is_grad_enabled() and nn.Linear(2, 2)(torch.ones(1, 2)).dtype is torch.bfloat16
    with scoring("tf32", torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype is torch.float32
    with scoring("float32", torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    assert torch.is_grad_enabled() and torch.get_float32_matmul_precision() == before


def test_inference_of_a_workload_is_on_its_inputs_and_no_more():
    inputs = {"x": torch.arange(6.0).view(3, 2), "y": torch.ones(3)}
    load = Workload(None, {}, lambda module, own: module(own["x"]) + own["y"][:, None], inputs, torch.device("cpu"))
    assert load.inference_batch_size == 3
    assert torch.equal(load.infer(nn.Identity(), 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    with pytest.raises(ValueError, match="inference on at most 3 samples, not 4"):
        load.infer(nn.Identity(), 4)


def test_an_evaluation_counts_parameters_and_flops():
    evaluation, layer = Evaluation({}), nn.Linear(3, 4)
    evaluation.count(layer, lambda: layer(torch.ones(1, 3)))
    assert (evaluation.model_parameters, evaluation.flops_per_sample) == (16, 24)


@pytest.mark.parametrize(("free", "kind"), [(1000, WorkerBatches), (1_000_000, DeviceBatches)])
def test_data_lie_on_the_device_where_they_fit_in_half_of_it(free, kind, monkeypatch):
    monkeypatch.setattr("replications.training.workers.free_bytes", lambda device: free)
    arrays = {"image": np.zeros((20, 10, 10), np.uint8), "label": np.arange(20)}
    rows, device = np.arange(5, 15), torch.device("cpu")
    found = resident_or_read(arrays, 5, 0, None, rows=rows, device=device)
    assert type(found) is kind and found.samples == 10
    assert set(found.batch(0)["label"].tolist()) | set(found.batch(1)["label"].tolist()) == set(range(5, 15))


def test_a_seed_line_is_the_mean_in_the_range_of_the_seeds():
    from matplotlib.figure import Figure

    from replications.tasks.base import Look
    from replications.tasks.seed_line import seed_line

    axes = Figure().subplots()
    values = np.array([[1.0, 4.0], [2.0, 8.0], [6.0, 6.0]])
    seed_line(axes, Look("#ff0000", "s", "--"), "a/b", [10, 20], values, markersize=4)
    (line,), (band,) = axes.lines, axes.collections
    assert line.get_xydata().tolist() == [[10, 3], [20, 6]] and line.get_label() == "a/b"
    assert (line.get_marker(), line.get_linestyle(), line.get_markersize()) == ("s", "--", 4)
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners == {(10, 1), (10, 6), (20, 4), (20, 8)}
