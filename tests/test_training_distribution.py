"""One run in two processes (gloo) against the same run in one."""

import os
import signal
import socket
from pathlib import Path

import pytest
import torch
from training_toys import (
    BATCH,
    SignalAt,
    assert_same_bits,
    history_of,
    make_stage,
    mlp,
    processes,
    run_stage,
    weights,
)

from replications.errors import RunFailure, UserError
from replications.training.distribution import Distribution, join, leave

STAGE = {"steps": 10, "accumulate": 2, "clip_norm": 1.0, "ema": 0.8, "validate_every": 1, "select": "best"}


def train_as_rank(rank: int, port: int, folder: Path, out: str, signal_at: int | None) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    distribution, _ = join("cpu")
    stage = make_stage(mlp, **STAGE)
    seen = record_batches(stage)
    if signal_at is not None and rank == 1:
        stage.batches = SignalAt(stage.batches, signal_at, signal.SIGTERM)
    content = {"failure": None}
    try:
        result = run_stage(stage, folder / "work", distribution=distribution)
        content.update(history=history_of(result), resumed=result.resumed)
    except RunFailure as failure:
        content["failure"] = f"{failure.reason}: {failure}"
    torch.save({**content, "weights": weights(stage.module), "seen": seen}, folder / f"{out}{rank}.pt")
    leave()


def record_batches(stage) -> list[tuple[int, torch.Tensor]]:
    """Have the stage's batches note the images of each step they give."""
    seen, batch = [], stage.batches.batch

    def recording(step, part=0, parts=1):
        given = batch(step, part, parts)
        seen.append((step, given["image"]))
        return given

    stage.batches.batch = recording
    return seen


def train_in_two(folder: Path, out: str, signal_at: int | None = None) -> list[dict]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    calls = [(train_as_rank, rank, port, folder, out, signal_at) for rank in range(2)]
    with processes(*calls) as started:
        for process in started:
            process.join()
            assert process.exitcode == 0
    return [torch.load(folder / f"{out}{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return train_in_two(tmp_path_factory.mktemp("two"), "end")


def test_two_processes_see_the_samples_and_reach_the_weights_of_one(two, tmp_path):
    alone = make_stage(mlp, **{**STAGE, "accumulate": 1})
    seen = record_batches(alone)
    result = run_stage(alone, tmp_path)
    for step, whole in seen:
        parts = [image for content in two for at, image in content["seen"] if at == step]
        assert len(parts) == 4 and torch.equal(torch.cat(parts), whole)
    for content in two:
        for ours, theirs in zip(content["history"], history_of(result), strict=True):
            assert ours["values"] == pytest.approx(theirs["values"], rel=1e-4)
        torch.testing.assert_close(content["weights"], weights(alone.module), rtol=1e-4, atol=1e-5)
    assert_same_bits(two[0]["weights"], two[1]["weights"])


def test_a_signal_to_one_process_stops_both_and_both_go_on_to_the_same_bits(two, tmp_path):
    for content in train_in_two(tmp_path, "cut", signal_at=4):
        assert content["failure"].startswith("interrupted: stage 'train', step 5 of 10")
    for content, expected in zip(train_in_two(tmp_path, "end"), two, strict=True):
        assert content["resumed"] == 1 and content["seen"][0][0] == 5
        assert content["history"] == expected["history"]
        assert_same_bits(content["weights"], expected["weights"])
    with pytest.raises(UserError, match=r"another training \(processes was 2, now 1\)"):
        run_stage(make_stage(mlp, **STAGE), tmp_path / "work")


def test_parts_of_processes_and_micro_batches_cover_the_batch():
    owned = [Distribution(rank, 4).own_parts(2) for rank in range(4)]
    assert [part for own, _ in owned for part in own] == list(range(8)) and {of for _, of in owned} == {8}
    assert BATCH % 8 == 0


def test_without_torchrun_a_run_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    distribution, device = join("cpu")
    assert distribution == Distribution(0, 1) and device == torch.device("cpu")
    assert distribution.any(True, False) == [True, False] and distribution.gather("x") == ["x"]


def test_more_processes_than_devices_is_one_clear_line(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes on 1 CUDA devices"):
        join("cuda")
