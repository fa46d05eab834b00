"""What is not a number never reaches a table: the runner, the same for every task, makes a failed record of it."""

import importlib
import json
import math
from types import SimpleNamespace

import pytest
import torch

from replications import catalogue, running
from replications.measurement import throughput
from replications.records import Curve, read_run, run_path
from replications.tasks.run import Evaluation

CPU = torch.device("cpu")
ADDRESS = {  # a method of each task
    catalogue.find_paper(address.partition("/")[0]).task: address
    for address in catalogue.methods_of(catalogue.papers(), "smoke")
}


def executed(address, evaluation, tmp_path, monkeypatch):
    """Run a method whose task comes to `evaluation`; return its record as it lies on disk."""
    spec = catalogue.resolve(address, "smoke", 0)
    module = importlib.import_module(f"replications.tasks.{spec.task}.execute")
    monkeypatch.setattr(module, "execute", lambda context: evaluation)
    running.execute(spec, data_root=tmp_path, work_root=tmp_path / "work", results=tmp_path / "results", device=CPU)
    return read_run(run_path(tmp_path / "results", spec.paper, spec.method, 0))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("task", ADDRESS)
def test_a_metric_that_is_not_finite_is_a_failed_record_in_every_task(task, value, tmp_path, monkeypatch):
    record = executed(ADDRESS[task], Evaluation({"fine": 1.0, "broken": value}), tmp_path, monkeypatch)
    assert (record.status, record.reason, record.metrics) == ("failed", "diverged", {})
    assert record.message == f"the metric broken is {value}"


def test_a_group_that_is_not_finite_is_a_failed_record_too(tmp_path, monkeypatch):
    evaluation = Evaluation({"ap": 1.0}, groups={"ap": [0.5, math.nan]})
    record = executed(ADDRESS["detection_2d"], evaluation, tmp_path, monkeypatch)
    assert (record.status, record.reason) == ("failed", "diverged") and "metric ap" in record.message


def test_what_is_only_shown_is_left_out_or_null(tmp_path, monkeypatch):
    evaluation = Evaluation(
        {"ap": 1.0},
        curves={"c": Curve(x_label="x", y_label="y", x=[0.0, 1.0, 2.0], y=[5.0, math.nan, 7.0])},
        extra={"table": [{"ap": math.nan, "name": "a"}, (1.0, -math.inf)]},
        data={"share": math.inf},
    )
    record = executed(ADDRESS["detection_2d"], evaluation, tmp_path, monkeypatch)
    assert (record.status, record.curves["c"].x, record.curves["c"].y) == ("finished", [0.0, 2.0], [5.0, 7.0])
    assert record.extra["table"] == [{"ap": None, "name": "a"}, [1.0, None]] and record.data["share"] is None


def test_a_weights_file_whose_score_is_not_finite_leaves_a_failed_record(tmp_path, monkeypatch):
    address = "detr/detr"
    spec = catalogue.resolve(address, "smoke", 0)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    module = importlib.import_module(f"replications.tasks.{spec.task}.score_weights")
    monkeypatch.setattr(module, "score_weights", lambda context: Evaluation({"ap": math.nan}))
    where = {"data_root": tmp_path, "work_root": tmp_path / "work", "results": tmp_path / "results"}
    record = running.score_weights(spec, weights, **where, device=CPU)
    assert (record.status, record.message) == ("failed", "the metric ap is nan")
    assert json.loads(run_path(tmp_path / "results", "detr", "detr", 0).read_text())["extra"]["weights"]["file"]


def test_a_speed_that_is_not_finite_is_a_failed_record(monkeypatch):
    spec = catalogue.resolve("detr/detr", "smoke", 0)
    fields = {"batch_size": 4, "train_samples_per_second": 3.0, "mfu": math.nan}
    monkeypatch.setattr(throughput, "_in_fresh_process", lambda *_: ())
    monkeypatch.setattr(throughput, "_fields", lambda spec: fields)
    record = throughput.measure_method(spec, None, "", "cpu", SimpleNamespace())
    assert (record.status, record.mfu, record.message) == ("failed", None, "mfu: not finite")


def test_a_record_says_what_code_data_and_machine_it_was_made_with(tmp_path, monkeypatch):
    record = executed(ADDRESS["detection_2d"], Evaluation({"ap": 1.0}), tmp_path, monkeypatch)
    spec = record.spec
    assert {f"replications.papers.{spec.paper}.model", "replications.training.loop"} <= record.modules.keys()
    assert not any(name.startswith("replications.reporting") for name in record.modules)
    assert record.sets.keys() == set(spec.data.values())
    assert record.provenance.cpu_capability == torch.backends.cpu.get_cpu_capability()
    assert 0 <= record.cost.background_load <= 1
