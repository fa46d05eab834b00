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

from replications import catalogue, running
from replications.datasets.prepare import prepare
from replications.errors import RunFailure
from replications.records import run_path
from replications.tasks.base import find_task
from replications.training.determinism import seed_everything

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
    spec = catalogue.resolve(address, "smoke", seed)
    torch.set_num_threads(spec.threads)
    return running.make_workload(spec, data_root, CPU)


def trainable(module):
    return [p for p in module.parameters() if p.requires_grad]


@pytest.mark.parametrize("address", SMOKE)
def test_training_on_one_batch_lowers_its_loss(address, data_root):
    load = workload(address, data_root)
    module = load.stage.module.train()
    if not trainable(module):
        pytest.skip("nothing to train")
    optimizer = torch.optim.SGD(trainable(module), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(12):
        seed_everything(0)  # the same dropout at each step
        loss = module(load.batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable(module), 5.0)
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[1:]) < 0.99 * losses[0], losses


@pytest.mark.parametrize("task", sorted({catalogue.find_method(address)[0].task for address in SMOKE}))
def test_the_skeleton_of_a_new_paper_learns(task, data_root, monkeypatch):
    """What ``new paper`` copies, in the place of a method: its loss falls and each weight gets a gradient."""
    address = next(address for address in SMOKE if catalogue.find_method(address)[0].task == task)
    skeleton = importlib.import_module(f"replications.tasks.{task}.skeleton")
    monkeypatch.setattr(running.context, "find_function", lambda spec, name: skeleton.build)
    options = catalogue.task_tiers(task)["smoke"].options
    resolve = catalogue.resolve
    monkeypatch.setattr(catalogue, "resolve", lambda *given: resolve(*given).model_copy(update={"options": options}))
    test_training_on_one_batch_lowers_its_loss(address, data_root)
    test_every_trainable_weight_gets_a_gradient(address, data_root)


@pytest.mark.parametrize("address", SMOKE)
def test_every_trainable_weight_gets_a_gradient(address, data_root):
    load = workload(address, data_root)
    if not trainable(load.stage.module):
        pytest.skip("nothing to train")
    load.stage.module.train()(load.batch)["loss"].backward()
    idle = [n for n, p in load.stage.module.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, f"no gradient reaches {idle}"


@pytest.mark.parametrize("address", SMOKE)
def test_same_seed_same_weights_other_seed_other_weights(address, data_root):
    one, same, other = (workload(address, data_root, seed).stage.module.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    if any(value.is_floating_point() and value.ndim > 1 for value in one.values()):
        assert any(not torch.equal(one[name], other[name]) for name in one)


class Killed(Exception):
    """Stands for a kill: nothing in the loop catches it."""


@pytest.mark.parametrize("address", SMOKE)
def test_interrupted_and_resumed_equals_uninterrupted(address, data_root, tmp_path):
    from replications.training.loop import train

    def stage():
        found = workload(address, data_root).stage
        recipe = found.recipe.model_copy(update={"steps": 6, "epochs": None, "checkpoint_seconds": 0.0})
        return copy.copy(found).__class__(**{**found.__dict__, "recipe": recipe})

    if not trainable(stage().module):
        pytest.skip("nothing to train")
    whole, cut = stage(), stage()
    train(whole, work=tmp_path / "whole", seed=7, device=CPU)

    original, calls = cut.batches.batch, []

    def failing(step, part=0, parts=1):
        calls.append(step)
        if len(calls) == 4:
            raise Killed
        return original(step, part, parts)

    cut.batches.batch = failing
    with pytest.raises(Killed):
        train(cut, work=tmp_path / "cut", seed=7, device=CPU)
    again = stage()
    result = train(again, work=tmp_path / "cut", seed=7, device=CPU)
    assert result.resumed == 1
    for (name, a), b in zip(whole.module.state_dict().items(), again.module.state_dict().values(), strict=True):
        assert torch.equal(a, b), f"{name} differs after resuming"


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
