"""One suite that every method of every paper passes, without being written again.

Runs in tier smoke: what is checked is that a method is what its spec says and trains as the loop promises, not how
well it does.
"""

import copy
import importlib
import math

import numpy as np
import pytest
import torch
from conformance import check_loss_falls, check_moves, check_resumes, trainable
from training_toys import Adversaries, turns_stage

from replications import catalogue, running
from replications.datasets.prepare import prepare
from replications.errors import RunFailure
from replications.records import run_path
from replications.tasks.base import find_task

SMOKE = catalogue.methods_of(catalogue.papers(), "smoke")
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """All data sets that tier smoke needs, prepared once."""
    root = tmp_path_factory.mktemp("data")
    keys = {key for address in SMOKE for key in catalogue.resolve(address, "smoke", 0).data.values()}
    for key in sorted(keys):
        prepare(key, root)
    return root


@pytest.fixture(scope="session")
def smoke_record(data_root, tmp_path_factory):
    """Return a function that runs a method in tier smoke once a session and gives its record."""
    root, records = tmp_path_factory.mktemp("smoke"), {}

    def record(address):
        if address not in records:
            spec = catalogue.resolve(address, "smoke", 0)
            records[address] = running.execute(
                spec, data_root=data_root, work_root=root / "work", results=root / "results", device=CPU
            )
        return records[address]

    record.results = root / "results"
    return record


def workload(address, data_root, seed=0):
    """Return a method's training step; skips the test of a method that trains nothing."""
    spec = catalogue.resolve(address, "smoke", seed)
    torch.set_num_threads(spec.threads)
    try:
        return running.make_workload(spec, data_root, CPU)
    except RunFailure as failure:
        if failure.reason != "does not apply":
            raise
        pytest.skip(f"nothing to train: {failure}")


@pytest.mark.parametrize("task", sorted({catalogue.find_method(address)[0].task for address in SMOKE}))
def test_the_skeleton_of_a_new_paper_learns(task, data_root, monkeypatch):
    """What ``new paper`` copies, in the place of a method: its loss falls and each weight gets a gradient."""
    address = next(address for address in SMOKE if catalogue.find_method(address)[0].task == task)
    skeleton = importlib.import_module(f"replications.tasks.{task}.skeleton")
    monkeypatch.setattr(running.context, "find_function", lambda spec, name: skeleton.build)
    options = catalogue.task_tiers(task)["smoke"].options
    resolve = catalogue.resolve
    monkeypatch.setattr(catalogue, "resolve", lambda *given: resolve(*given).model_copy(update={"options": options}))
    test_a_step_moves_every_trainable_weight_and_lowers_the_loss(address, data_root)


@pytest.mark.parametrize("address", SMOKE)
def test_a_step_moves_every_trainable_weight_and_lowers_the_loss(address, data_root):
    load = workload(address, data_root)
    if not trainable(load.stage.module):
        pytest.skip("nothing to train")
    start = copy.deepcopy(load.stage.module.state_dict())
    check_moves(load.stage, load.batch)
    load.stage.module.load_state_dict(start)
    check_loss_falls(load.stage, load.batch)


@pytest.mark.parametrize("address", SMOKE)
def test_same_seed_same_weights_other_seed_other_weights(address, data_root):
    one, same, other = (workload(address, data_root, seed).stage.module.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    if any(value.is_floating_point() and value.ndim > 1 for value in one.values()):
        assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("address", SMOKE)
def test_interrupted_and_resumed_equals_uninterrupted(address, data_root, tmp_path):
    if not trainable(workload(address, data_root).stage.module):
        pytest.skip("nothing to train")
    check_resumes(lambda: workload(address, data_root).stage, tmp_path)


@pytest.mark.parametrize("task", sorted({catalogue.find_method(address)[0].task for address in SMOKE}))
def test_build_gets_and_returns_what_the_task_declares(task, data_root, monkeypatch):
    built, build = [], running.RunContext.build

    def recording(context, name, **info):
        module = build(context, name, **info)
        built.append((set(info), module))
        return module

    monkeypatch.setattr(running.RunContext, "build", recording)
    workload(next(address for address in SMOKE if catalogue.find_method(address)[0].task == task), data_root)
    declared = find_task(task)
    module, _, name = declared.returns.partition(":")
    returned = getattr(importlib.import_module(f"replications.{module}"), name)
    for info, module in built:
        assert info == set(declared.build) and isinstance(module, returned)
    assert built and all(declared.build.values())


class Toy(Adversaries):
    """Adversaries of which one thing is wrong."""

    def __init__(self, wrong: str = ""):
        super().__init__()
        self.wrong, self.steps = wrong, 0

    def forward(self, batch, turn):
        self.steps += 1
        found = super().forward(batch, turn)
        if self.wrong == "not finite" and turn == "generator":
            return {"loss": found["loss"] * math.nan}
        if self.wrong == "not reached" and turn == "generator":
            return {"loss": self.generator[0].weight.square().mean()}
        if self.wrong == "moves another" and turn == "critic":
            with torch.no_grad():
                self.generator[0].bias.add_(0.1)
        if self.wrong == "cannot resume":
            return {"loss": found["loss"] * (1 + 0.1 * self.steps)}
        return found


def test_a_stage_in_turns_passes(tmp_path):
    stage = turns_stage(build=Toy, ema=0.0)
    check_moves(stage, stage.batches.batch(0))
    check_loss_falls(turns_stage(build=Toy), stage.batches.batch(0))
    check_resumes(turns_stage, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("not finite", "turn 'generator': the loss is nan"),
        ("not reached", "turn 'generator': no gradient reaches .*generator.0.bias"),
        ("moves another", "turn 'critic': a step moves .*generator.0.bias"),
    ],
)
def test_a_faulty_turn_is_seen(wrong, message):
    stage = turns_stage(build=lambda: Toy(wrong))
    with pytest.raises(AssertionError, match=message):
        check_moves(stage, stage.batches.batch(0))


def test_a_stage_in_turns_that_does_not_resume_is_seen(tmp_path):
    with pytest.raises(AssertionError, match="differs after resuming"):
        check_resumes(lambda: turns_stage(build=lambda: Toy("cannot resume")), tmp_path)


@pytest.mark.parametrize("address", SMOKE)
def test_smoke_run_finishes_with_the_metrics_of_its_task(address, smoke_record):
    record = smoke_record(address)
    task = find_task(record.spec.task)
    assert record.status == "finished"
    assert task.primary_metric in record.metrics
    unknown = [name for name in record.metrics if name not in task.metrics]
    assert not unknown, f"metrics that the task does not describe: {unknown}"
    assert all(math.isfinite(value) for value in record.metrics.values())
    assert record.cost.total_seconds > 0 and record.provenance is not None


@pytest.mark.parametrize("address", SMOKE)
def test_scores_beside_the_record_give_its_metrics_again(address, smoke_record):
    record = smoke_record(address)
    arrays = run_path(smoke_record.results, record.spec.paper, record.spec.method, 0).with_name("arrays.npz")
    if not arrays.exists():
        pytest.skip("the run keeps no arrays")
    with np.load(arrays) as stored:
        again = find_task(record.spec.task).rescore(dict(stored))
    if not again:
        pytest.skip("the task keeps no scores")
    assert find_task(record.spec.task).primary_metric in again
    assert again == pytest.approx({name: record.metrics[name] for name in again})


@pytest.mark.parametrize("key", sorted(catalogue.papers()))
def test_claims_name_metrics_that_their_runs_have(key, smoke_record):
    for claim in catalogue.find_paper(key).claims:
        for side in filter(None, (claim.subject, claim.reference)):
            if catalogue.is_in_tier(side.method, "smoke"):
                metrics = smoke_record(side.method).metrics
                assert side.metric in metrics, f"claim {claim.id}: {side.method} has no metric {side.metric}"


@pytest.mark.parametrize("key", sorted(catalogue.papers()))
def test_claims_cite_deviations_that_the_readme_lists(key):
    listed = catalogue.deviations(key)
    for claim in catalogue.find_paper(key).claims:
        missing = set(claim.deviations) - set(listed)
        assert not missing, f"claim {claim.id} cites deviations {missing} that papers/{key}/README.md does not list"


@pytest.mark.parametrize("tier", ["smoke", "mini", "standard", "paper"])
@pytest.mark.parametrize("key", sorted(catalogue.papers()))
def test_every_spec_resolves_and_says_why_it_differs(key, tier):
    for name, method in catalogue.find_paper(key).methods.items():
        address = f"{key}/{name}"
        if not catalogue.is_in_tier(address, tier):
            continue
        spec = catalogue.resolve(address, tier, 0)
        find_task(spec.task).parse_options(spec.task_options)
        running.fingerprints(spec)
        override = method.per_tier.get(tier)
        if catalogue.differences(address, tier):
            assert method.why or (override and override.why), f"{address} departs from its task in {tier}: say why"


def test_a_diverged_run_is_a_failed_record(data_root, tmp_path, monkeypatch):
    from replications.training import loop

    def diverges(*arguments, **keywords):
        raise RunFailure("diverged", "stage train, step 3: loss is nan")

    address = next(a for a in SMOKE if trainable(workload(a, data_root).stage.module))
    monkeypatch.setattr(loop, "train", diverges)
    spec = catalogue.resolve(address, "smoke", 0)
    record = running.execute(
        spec, data_root=data_root, work_root=tmp_path / "work", results=tmp_path / "results", device=CPU
    )
    assert (record.status, record.reason) == ("failed", "diverged")
    assert "step 3" in record.message and record.metrics == {}
