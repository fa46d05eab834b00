"""``doctor`` rehearsed on a CPU: it passes what is right, names what is wrong, and goes on where it stopped."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from training_toys import AUGMENT, BATCH, arrays, cnn
from training_toys import make_stage as toy_stage

from replications.cli import main
from replications.running import checks, doctor, equal_draws
from replications.spec import Recipe
from replications.training.batches import DeviceBatches
from replications.training.determinism import seed_everything
from replications.training.stage import Stage, Turn

CPU = torch.device("cpu")
aten = torch.ops.aten


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def new_findings(capsys) -> int:
    return sum(line.startswith("ok ") for line in capsys.readouterr().out.splitlines())


def test_a_rehearsal_passes_and_goes_on_where_it_was_cut(tmp_path, capsys):
    out, methods = tmp_path / "doctor.jsonl", "vit/vit,pointnet2/ssg"
    words = ["doctor", "--device=cpu", f"--data-root={tmp_path}/data", f"--out={out}", f"--methods={methods}"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "0 of them differ or failed" in said and "vit/vit" in said.split("point operation")[1]
    lines = lines_of(out)
    for method in methods.split(","):
        own = {line["check"]: line for line in lines if line["subject"] == method}
        assert set(own) == {"batch", "loss", "gradients", "bf16", "repeat", "resume"}
        assert all(line["verdict"] == "ok" for line in own.values())
        assert own["gradients"]["figure"] == 0 and own["gradients"]["nudged"] > 0 and 0 < own["bf16"]["figure"] < 0.1
        assert own["repeat"]["waits"] == 0
    assert {"ball of 1024", "nearest of 4100"} < {line["check"] for line in lines if line["subject"] == "points"}

    whole = out.read_text()
    assert main(words) == 0
    assert out.read_text() == whole and new_findings(capsys) == 0
    out.write_text(whole[:-20])  # killed while it wrote the last line, of a method's resuming
    assert main(words) == 0
    assert new_findings(capsys) == 1
    assert [(line["subject"], line["check"]) for line in lines_of(out)] == [(x["subject"], x["check"]) for x in lines]


def point(verdict="ok", **more):
    return [{"check": "x", "verdict": verdict, "figure": 0.0, **more}]


@pytest.fixture
def quick(monkeypatch):
    """Checks that take no time, each noted in `made`."""
    made = []
    monkeypatch.setattr(doctor, "_make", lambda check, *_: made.append((check.group, check.subject)) or point())
    return SimpleNamespace(made=made, methods=["arcface/arcface", "resnet/resnet"])


def sit(methods, out, **more):
    return doctor.examine(methods, data_root=out.parent, device=CPU, name="a CPU", out=out, **more)


def test_no_check_begins_after_the_limit_and_the_next_sitting_makes_the_rest(quick, tmp_path):
    ticks = iter(range(0, 1000, 1))
    first = sit(quick.methods, tmp_path / "x.jsonl", limit=7.5, clock=lambda: next(ticks))
    # The clock is read three times a check: before it, at its beginning and at its end.
    assert first.left == 2 and first.why == "the time is up" and len(first.lines) == 3
    before = list(quick.made)
    assert before == [("points", "points"), ("step", "arcface/arcface"), ("step", "resnet/resnet")]
    second = sit(quick.methods, tmp_path / "x.jsonl")
    assert second.left == 0 and len(second.lines) == 5
    assert quick.made[3:] == [("resume", "arcface/arcface"), ("resume", "resnet/resnet")]


def test_lines_of_another_device_or_of_other_code_do_not_count(quick, tmp_path, monkeypatch):
    out = tmp_path / "x.jsonl"
    sit(["resnet/resnet"], out)
    again = doctor.examine(["resnet/resnet"], data_root=tmp_path, device=CPU, name="a GPU", out=out)
    assert len(quick.made) == 6 and {line["device"] for line in again.lines} == {"a GPU"}
    monkeypatch.setattr(doctor, "fingerprints", lambda spec: SimpleNamespace(code="changed"))
    sit(["resnet/resnet"], out)
    assert quick.made[6:] == [("step", "resnet/resnet"), ("resume", "resnet/resnet")]


def test_a_check_that_raises_is_a_line_and_a_broken_device_ends_the_sitting(tmp_path, monkeypatch):
    def breaks(spec, data_root, device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(checks, "point_operations", lambda device: [])
    monkeypatch.setattr(checks, "step", breaks)
    out = tmp_path / "x.jsonl"
    found = sit(["arcface/arcface", "resnet/resnet"], out)
    assert found.left == 3 and "error" in found.why
    assert lines_of(out)[-1]["verdict"] == "failed" and "illegal memory" in lines_of(out)[-1]["message"]
    assert "FAILED" in doctor.table(found.lines) and not doctor.healthy(found.lines[-1])
    monkeypatch.setattr(checks, "step", lambda *_: [])
    after = sit(["arcface/arcface", "resnet/resnet"], out, limit=0.0)
    assert after.left == 3 and len(after.lines) == 2, "what broke the device is not tried again by itself"


def test_a_method_without_a_training_step_does_not_fail(tmp_path):
    found = sit(["pathwise/pathwise"], tmp_path / "x.jsonl")
    own = [line for line in found.lines if line["subject"] == "pathwise/pathwise"]
    assert [(line["group"], line["verdict"]) for line in own] == [
        ("step", "does not apply"), ("resume", "does not apply"),
    ]  # fmt: skip
    assert all(map(doctor.healthy, own))


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "inf", "soon"])
def test_a_limit_that_is_none_is_refused_in_a_line(limit, capsys):
    assert main(["doctor", f"--limit={limit}"]) == 2
    said = capsys.readouterr().err
    assert f"not '{limit}'" in said and len(said.splitlines()) == 1


def test_another_file_is_not_written_into(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("dear diary\n")
    words = ["doctor", "--device=cpu", "--methods=resnet/resnet", f"--out={tmp_path}/notes.txt"]
    assert main(words) == 2
    assert "was not written by" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "dear diary\n"


# What is wrong is found


def repeated(stage):
    with checks.deterministic(not stage.nondeterministic):
        return checks._repeat(stage, checks._awake(stage.module), CPU)


class Drifts(nn.Module):
    """Its loss depends on how often it was called, which no state tells."""

    def __init__(self):
        super().__init__()
        self.net, self.calls = cnn(), 0

    def forward(self, batch):
        self.calls += 1
        return {name: value * (1 + 1e-3 * self.calls) for name, value in self.net(batch).items()}


def test_a_step_that_does_not_repeat_is_found_and_a_declared_one_named():
    assert repeated(toy_stage()).verdict == "ok"
    found = repeated(toy_stage(Drifts))
    assert found.verdict == "differs" and 0 < found.figure < 1
    declared = repeated(replace(toy_stage(Drifts), nondeterministic="a sum without order"))
    assert declared.verdict == "declared" and declared.details["declared"] == "a sum without order"


def test_training_that_does_not_resume_to_the_bit_is_found(tmp_path, monkeypatch):
    for build, verdict in ((cnn, "ok"), (Drifts, "differs")):
        monkeypatch.setattr(checks, "make_workload", lambda *_, b=build: SimpleNamespace(stage=toy_stage(b)))
        assert checks.resume(None, tmp_path, CPU)[0].verdict == verdict


def test_gradients_that_differ_are_found_with_their_place(monkeypatch):
    stage = toy_stage()
    state, batch = checks._awake(stage.module), stage.batches.batch(0)
    take = checks.take_losses
    calls = []

    def wrong(*arguments):
        taken = take(*arguments)
        calls.append(taken)
        if len(calls) == 3:  # the one on the device, after the CPU's and the nudged one
            taken.gradients["net.0.weight"] *= 1.1
        return taken

    monkeypatch.setattr(checks, "take_losses", wrong)
    loss, gradients, _ = checks._gradients(stage, state, batch, CPU)
    assert loss.verdict == "ok" and gradients.verdict == "differs"
    assert gradients.details["worst"] == "net.0.weight" and 1e-3 < gradients.figure < 0.1


def test_what_starts_at_zero_lets_gradients_pass():
    stage = toy_stage()
    nn.init.zeros_(stage.module.net[-1].weight)
    taken = checks.take_losses(stage, checks._awake(stage.module), stage.batches.batch(0), CPU)
    assert all(gradient.any() for name, gradient in taken.gradients.items() if name.endswith("0.weight"))


class Game(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, batch, turn):
        x = batch["image"].mean((2, 3))
        return {"loss": (self.one(x) - self.two(x)).square().mean() * (1 if turn == "first" else -1)}


def test_a_stage_of_turns_is_checked_turn_by_turn():
    seed_everything(0)
    turns = (Turn("first", "one"), Turn("second", "two", {"lr": 0.01}))
    batches = DeviceBatches(arrays(), BATCH, seed=0, augment=AUGMENT)
    stage = Stage("game", Game(), batches, Recipe(batch_size=BATCH, steps=4, lr=0.05), turns=turns)
    batch = batches.batch(0)
    taken = checks.take_losses(stage, checks._awake(stage.module), batch, CPU)
    assert set(taken.losses) == {"first_loss", "second_loss"}
    assert set(taken.gradients) == {"first_one.weight", "first_one.bias", "second_two.weight", "second_two.bias"}
    x = batch["image"].mean((2, 3))
    gap = (stage.module.one(x) - stage.module.two(x)).detach()
    assert taken.gradients["first_one.bias"] == pytest.approx(2 * gap.mean(0), rel=1e-5)
    assert taken.gradients["second_two.bias"] == pytest.approx(2 * gap.mean(0), rel=1e-5)
    assert checks._repeat(stage, checks._awake(stage.module), CPU).verdict == "ok"


# Equal draws


def test_draws_for_a_device_are_the_host_s():
    seed_everything(0)
    wanted = torch.rand(5)
    seed_everything(0)
    result = equal_draws.on_the_host(aten.rand.default, ([5],), {"device": torch.device("meta")}, CPU)
    assert torch.equal(result, wanted)
    seed_everything(0)
    place = torch.empty(5)
    written = equal_draws.on_the_host(aten.uniform_.default, (place,), {}, CPU)
    assert written is place and torch.equal(place, wanted)


def test_fused_dropout_drops_what_the_host_s_drops():
    x = torch.ones(1000)
    seed_everything(3)
    wanted = torch.nn.functional.dropout(x, 0.3)
    seed_everything(3)
    found, mask = equal_draws.on_the_host(aten.native_dropout.default, (x, 0.3, True), {}, CPU)
    assert torch.equal(found, wanted) and torch.equal(mask, wanted > 0)


def test_attention_drops_nothing_where_devices_are_compared():
    q = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    with equal_draws.equal_draws():
        same = torch.nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5)
    assert torch.equal(plain, same)
