"""Which algorithms torch is held to where a task scores and sweeps: what training was held to."""

import sys

import pytest
import torch

from replications import catalogue, running
from replications.datasets.prepare import prepare
from replications.measurement import lengths
from replications.running import RunContext
from replications.tasks.detection_2d.execute import Setup, score
from replications.tasks.language_modelling import sweep
from replications.training.determinism import deterministic

ERROR = 2  # of torch's debug mode: an operation without a deterministic version raises


@pytest.mark.parametrize("address, mode", [("faster_rcnn/faster_rcnn", 0), ("detr/detr", ERROR)])
def test_detectors_are_scored_as_they_were_trained(address, mode, tmp_path, monkeypatch):
    spec = catalogue.resolve(address, "smoke", 0)
    for key in spec.data.values():
        prepare(key, tmp_path / "data")
    setup = Setup.of(RunContext(spec, torch.device("cpu"), tmp_path / "data", tmp_path))
    detector, seen = setup.build().eval(), []
    detect = detector.detect
    monkeypatch.setattr(detector, "detect", lambda b: seen.append(torch.get_deterministic_debug_mode()) or detect(b))
    with deterministic():
        score(setup, detector)
        assert torch.get_deterministic_debug_mode() == ERROR
    assert set(seen) == {mode}


def test_a_sweep_is_held_to_what_training_is(monkeypatch):
    model = sweep.reference_model("sdpa", 257, width=16, depth=1, heads=2)
    step, seen = lengths._step, []

    def watched(*arguments):
        seen.append((torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision()))
        return step(*arguments)

    monkeypatch.setattr(lengths, "_step", watched)
    lengths._measure({"method": model}, 64, 1, "cpu", "tf32")
    assert set(seen) == {(ERROR, "high")}


@pytest.mark.parametrize(
    "address, precision, wanted, told",
    [
        ("arcface/arcface", "tf32", ("high", True), True),
        ("faster_rcnn/faster_rcnn", "float32", ("highest", False), False),
    ],
)
def test_a_run_is_scored_in_the_precision_it_was_trained_in(address, precision, wanted, told, tmp_path, monkeypatch):
    """torch's own default mixes: convolutions in TF32 on CUDA, matrix products not."""
    spec, seen = catalogue.resolve(address, "smoke", 0, [f"recipe.precision={precision}"]), []
    for key in spec.data.values():
        prepare(key, tmp_path / "data")

    def watched(evaluation):
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return evaluation

    monkeypatch.setattr(sys.modules["replications.running.execute"], "finite", watched)
    folders = {"data_root": tmp_path / "data", "work_root": tmp_path / "work", "results": tmp_path / "results"}
    record = running.execute(spec, **folders, device=torch.device("cpu"))
    assert seen == [wanted] and record.provenance.deterministic is told


@pytest.mark.parametrize("key", sorted(catalogue.papers()))
def test_both_sides_of_a_claim_have_one_precision(key):
    for claim in catalogue.find_paper(key).claims:
        for tier in claim.tiers:
            sides = {side.method for side in (claim.subject, claim.reference) if side}
            specs = [catalogue.resolve(a, tier, 0) for a in sides if catalogue.is_in_tier(a, tier)]
            assert len({spec.recipe.precision for spec in specs if spec.recipe}) < 2, f"{claim.id} in {tier}"
