"""Which algorithms torch is held to where a task scores and sweeps: what training was held to."""

import pytest
import torch

from replications import catalogue
from replications.datasets.prepare import prepare
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
    step, seen = sweep._step, []

    def watched(*arguments):
        seen.append((torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision()))
        return step(*arguments)

    monkeypatch.setattr(sweep, "_step", watched)
    sweep._measure({"method": model}, 64, 1, "cpu", "tf32")
    assert set(seen) == {(ERROR, "high")}
