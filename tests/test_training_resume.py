"""A training killed with SIGKILL, again and again, ends with the bits of one that was left alone."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training_toys import (
    AUGMENT,
    BATCH,
    arrays,
    assert_same_bits,
    history_of,
    make_stage,
    processes,
    run_stage,
    weights,
)

from replications.training.determinism import set_threads
from replications.training.workers import WorkerBatches

# Everything that has a state: dropout, BatchNorm, momentum, augmentation, average, selection.
STAGE = {
    "steps": 60,
    "ema": 0.9,
    "clip_norm": 1.0,
    "warmup": 0.1,
    "accumulate": 2,
    "validate_every": 2.0,
    "select": "best",
    "checkpoint_seconds": 0.0,
}


def build_stage(recipe: dict, workers: bool = False):
    batches = None
    if workers:
        batches = WorkerBatches({name: np.asarray(a) for name, a in arrays().items()}, BATCH, 0, AUGMENT, workers=2)
    return make_stage(batches=batches, **recipe)


def train_and_save(work: Path, out: Path, recipe: dict, workers: bool = False) -> None:
    stage = build_stage(recipe, workers)
    result = run_stage(stage, work)
    content = {"weights": weights(stage.module), "history": history_of(result), "resumed": result.resumed}
    torch.save(content, out.with_suffix(".tmp"))
    os.replace(out.with_suffix(".tmp"), out)


def train_killing_itself(work: Path, out: Path, recipe: dict, function: str, call: int) -> None:
    """Train, and die at call number `call` of a function of `os` that writing a checkpoint uses."""
    original, calls = getattr(os, function), []

    def killing(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(os, function, killing)
    train_and_save(work, out, recipe)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Weights and history of the training that nobody kills."""
    return left_alone(tmp_path_factory.mktemp("undisturbed"), STAGE)


def left_alone(folder: Path, recipe: dict) -> dict:
    set_threads(1)  # as the processes that are killed have
    stage = build_stage(recipe)
    result = run_stage(stage, folder)
    return {"weights": weights(stage.module), "history": history_of(result)}


def assert_same_end(out: Path, expected: dict) -> dict:
    content = torch.load(out)
    assert_same_bits(expected["weights"], content["weights"])
    assert content["history"] == expected["history"]
    return content


@pytest.mark.parametrize("workers", [False, True])
def test_killed_at_random_moments(tmp_path, undisturbed, workers):
    moments, out, kills = random.Random(workers), tmp_path / "out.pt", 0
    recipe = {**STAGE, "checkpoint_seconds": 0.01 if workers else 0.0}
    latest = tmp_path / "work" / "train.ckpt"

    def written() -> int:
        try:
            return latest.stat().st_mtime_ns
        except FileNotFoundError:  # none yet, or between two renames
            return 0

    while not out.exists():
        known = written()
        with processes((train_and_save, tmp_path / "work", out, recipe, workers)) as (process,):
            while process.is_alive() and written() in (0, known):
                time.sleep(0.001)  # until it has come further than the one before
            process.join(moments.uniform(0, 0.04) if kills < 5 else None)
            kills += process.is_alive()
        assert process.exitcode in (0, -signal.SIGKILL)
    assert_same_end(out, undisturbed)
    assert kills >= 3


@pytest.mark.parametrize(("function", "call"), [("fsync", 21), ("replace", 20), ("replace", 21)])
def test_killed_while_a_checkpoint_is_written(tmp_path, undisturbed, function, call):
    """At the sync of the temporary file, and before and between the renames of the old and the new file."""
    out = tmp_path / "out.pt"
    with processes((train_killing_itself, tmp_path / "work", out, STAGE, function, call)) as (process,):
        process.join()
        assert process.exitcode == -signal.SIGKILL
    with processes((train_and_save, tmp_path / "work", out, STAGE)) as (process,):
        process.join()
    assert assert_same_end(out, undisturbed)["resumed"] == 1


def test_the_moments_of_adamw_come_back(tmp_path):
    recipe, out = {**STAGE, "optimizer": "adamw", "lr": 0.01}, tmp_path / "out.pt"
    with processes((train_killing_itself, tmp_path / "work", out, recipe, "fsync", 31)) as (process,):
        process.join()
        assert process.exitcode == -signal.SIGKILL
    with processes((train_and_save, tmp_path / "work", out, recipe)) as (process,):
        process.join()
    assert assert_same_end(out, left_alone(tmp_path / "alone", recipe))["resumed"] == 1


def test_fallen_back_to_the_previous_checkpoint(tmp_path, undisturbed):
    out, latest = tmp_path / "out.pt", tmp_path / "work" / "train.ckpt"
    with processes((train_killing_itself, tmp_path / "work", out, STAGE, "fsync", 30)) as (process,):
        process.join()
    latest.write_bytes(latest.read_bytes()[:-1000])
    with processes((train_and_save, tmp_path / "work", out, STAGE)) as (process,):
        process.join()
    assert_same_end(out, undisturbed)
