"""Several runs on one GPU: the plan counts slots, and records tell it, so that their times are not judged."""

from types import SimpleNamespace

import pytest
import torch

from replications import catalogue
from replications.cli import main
from replications.errors import UserError
from replications.planning import front
from replications.planning.knobs import read_knobs
from replications.planning.plan import Plan
from replications.records import Cost
from replications.running import execute
from replications.tasks.run import Evaluation

CONFIG = catalogue.read_yaml(catalogue.CONFIG / "config.yaml")


def plan(**changes):
    return Plan(read_knobs({**CONFIG, **changes}))


def test_a_run_takes_a_slot_and_a_measurement_all_of_them():
    packed = plan(device="cuda", runs_per_gpu="8")
    assert (packed.gpu, packed.whole_gpu) == (1, 8)
    assert "--runs-per-gpu=8" in packed.shell("run", "runs_per_gpu")
    assert plan(device="cuda").whole_gpu == 1 and plan(device="cpu", runs_per_gpu=8).whole_gpu == 0
    assert "runs-per-gpu" not in plan().shell("run", "runs_per_gpu")


@pytest.mark.parametrize("given", [0, 65, "many", 1.5])
def test_a_wrong_number_is_one_line(given):
    with pytest.raises(UserError, match=r"runs_per_gpu=.* is wrong; it is how many runs share a GPU"):
        plan(runs_per_gpu=given)


def test_a_wrong_number_on_the_command_line(capsys):
    assert main(["run", "vit/vit", "--runs-per-gpu", "0"]) == 2
    assert "a number from 1 to 64" in capsys.readouterr().err


class Workflow(SimpleNamespace):
    def register_resource(self, name, value):
        self.global_resources[name] = SimpleNamespace(value=value)


def test_the_limit_of_gpus_becomes_one_of_slots():
    workflow = Workflow(is_main_process=True, global_resources={"gpu": SimpleNamespace(value=2)})
    front._count_slots(workflow, 8)
    assert workflow.global_resources["gpu"].value == 16
    with pytest.raises(UserError, match="one machine"):
        front._count_slots(Workflow(is_main_process=True, global_resources={}), 8)


def test_a_shared_gpu_counts_as_busy():
    assert Cost(background_load=0.1).load_by_others == 0.1 and Cost().load_by_others is None
    assert Cost(runs_per_gpu=4).load_by_others == 0.75
    assert Cost(runs_per_gpu=2, background_load=0.9).load_by_others == 0.9


@pytest.mark.parametrize(("kind", "told"), [("cuda", 8), ("cpu", 1)])
def test_a_record_tells_that_the_gpu_was_shared(kind, told, tmp_path, monkeypatch):
    module = __import__("replications.running.execute", fromlist=["_run"])
    task = SimpleNamespace(execute=lambda context: Evaluation({"accuracy": 1.0}))
    monkeypatch.setattr(module, "find_task", lambda name: task)
    monkeypatch.setattr("replications.measurement.memory.keep_freed_memory", lambda device: None)
    monkeypatch.setattr("replications.measurement.memory.reset_peak_memory", lambda device: None)
    monkeypatch.setattr("replications.measurement.memory.peak_memory", lambda device: 1)
    monkeypatch.setattr("replications.measurement.energy.EnergyMeter", lambda device: Meter())
    own = __import__("replications.measurement.provenance", fromlist=["provenance"]).provenance
    on_cpu = own(torch.device("cpu"), 1, deterministic=True)
    monkeypatch.setattr("replications.measurement.provenance.provenance", lambda *_, **__: on_cpu)
    spec = catalogue.resolve("vit/vit", "smoke", 0)
    where = {"data_root": tmp_path, "work_root": tmp_path / "work", "results": tmp_path / "results"}
    cost = execute(spec, **where, device=torch.device(kind), runs_per_gpu=8).cost
    assert cost.runs_per_gpu == told
    assert cost.energy_joules == (None if told > 1 else 3.0), "the energy of a shared card is not one run's"


class Meter:
    joules = 3.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
