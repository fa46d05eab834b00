import errno
import os
import random

import numpy as np
import pytest
import torch
from training_toys import SignalAt, assert_same_bits, make_stage, mlp, run_stage, weights

from replications.errors import RunFailure, UserError
from replications.training.checkpoint import Checkpoints
from replications.training.determinism import preserved_rng, rng_state, seed_everything, set_rng_state

CPU = torch.device("cpu")


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints, the newer with a megabyte of weights."""
    checkpoints = Checkpoints(tmp_path, "train")
    checkpoints.write({"step": 1})
    checkpoints.write({"step": 2, "weights": {"w": torch.arange(250_000.0)}, "pair": (1, None, "x")})
    return checkpoints


def test_what_is_written_is_read(saved):
    state = saved.read()
    assert state["step"] == 2 and state["pair"] == (1, None, "x")
    assert torch.equal(state["weights"]["w"], torch.arange(250_000.0))
    assert sorted(path.name for path in saved.latest.parent.iterdir()) == ["train.ckpt", "train.previous.ckpt"]
    assert Checkpoints(saved.latest.parent, "other").read() is None


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = b""
    elif how == "one bit of a weight":  # torch reads such a file without complaint
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit of a weight"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(saved, how, capsys):
    damage(saved.latest, how)
    assert saved.read() == {"step": 1}
    message = capsys.readouterr().err
    assert "train.ckpt is damaged" in message and "continuing from train.previous.ckpt" in message
    damage(saved.previous, how)
    assert saved.read() is None
    assert "no intact checkpoint is left, stage 'train' starts from step 0" in capsys.readouterr().err


def test_a_kill_between_the_two_renames_leaves_the_one_before(saved):
    os.replace(saved.latest, saved.previous)
    assert saved.read()["step"] == 2


def test_the_final_state_leaves_nothing_else(saved):
    saved.write({"step": 3}, keep_previous=False)
    assert saved.read() == {"step": 3}
    assert [path.name for path in saved.latest.parent.iterdir()] == ["train.ckpt"]


def test_a_full_disk_is_one_clear_line_and_the_older_checkpoint_stays(saved):
    (saved.latest.parent / "train.ckpt.tmp").symlink_to("/dev/full")  # the kernel's own "no space left"
    with pytest.raises(UserError, match=r"cannot write checkpoint .*train\.ckpt: No space left.*free some space"):
        saved.write({"step": 3, "weights": torch.zeros(100_000)})
    assert saved.read()["step"] == 2
    assert sorted(path.name for path in saved.latest.parent.iterdir()) == ["train.ckpt", "train.previous.ckpt"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_disk_that_fills_at_the_last_moment_loses_nothing(saved, monkeypatch, function):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, function, full)
        with pytest.raises(UserError, match="No space left"):
            saved.write({"step": 3})
    assert saved.read()["step"] == 2
    assert not saved.latest.with_suffix(".ckpt.tmp").exists()


def test_a_disk_that_fills_while_training_can_be_freed_and_training_goes_on(tmp_path, monkeypatch):
    whole, cut, resumed = (make_stage(checkpoint_seconds=0) for _ in range(3))
    run_stage(whole, tmp_path / "whole")
    calls, fsync = [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left"):
            run_stage(cut, tmp_path / "cut")
    assert run_stage(resumed, tmp_path / "cut").resumed == 1
    assert_same_bits(weights(whole.module), weights(resumed.module))


def test_a_checkpoint_of_another_training_is_refused_and_the_difference_named(tmp_path):
    stage = make_stage(mlp)
    stage.batches = SignalAt(stage.batches, 4, 15)
    with pytest.raises(RunFailure, match="interrupted"):
        run_stage(stage, tmp_path)
    with pytest.raises(UserError, match=r"another training \(lr was 0.05, now 0.1\): delete"):
        run_stage(make_stage(mlp, lr=0.1), tmp_path)
    with pytest.raises(UserError, match=r"another training \(parameters was"):
        run_stage(make_stage(), tmp_path)
    run_stage(make_stage(mlp, checkpoint_seconds=5), tmp_path)  # how often one saves is no difference


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(Checkpoints, "write", lambda self, state, **_: written.append(state["step"]))
    run_stage(make_stage(mlp, checkpoint_seconds=0), tmp_path)
    assert written == [*range(1, 13), 12]
    written.clear()
    run_stage(make_stage(mlp, checkpoint_seconds=3600), tmp_path)
    assert written == [12]


def test_generators_go_on_where_they_were(tmp_path):
    def draw():
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()]

    seed_everything(3)
    draw()  # an odd number of normal values: numpy keeps the other half of a pair
    checkpoints = Checkpoints(tmp_path, "train")
    checkpoints.write({"rng": rng_state(CPU)})
    expected = draw()
    seed_everything(4)
    with preserved_rng(CPU):
        draw()
    set_rng_state(checkpoints.read()["rng"], CPU)
    assert draw() == expected


def test_a_checkpoint_cannot_run_code(tmp_path):
    checkpoints = Checkpoints(tmp_path, "train")
    checkpoints.write({"step": os.system})
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoints.read()
