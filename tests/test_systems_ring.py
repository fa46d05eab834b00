"""Ring all-reduce: bytes by hand, sums, the fit, and ranks that die."""

import os
import signal
import time
from multiprocessing import Pipe
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from replications.errors import RunFailure, UserError
from replications.layers.systems.measured import Measured
from replications.papers.ring_allreduce import model, ranks
from replications.papers.ring_allreduce.collectives import Link, gather_broadcast, ring

COUNTS = (7, 6, 2)  # values: parts of 3 + 2 + 2; of 2 each; fewer values than ranks


def reduce_all() -> dict:
    """What a rank finds for each of `COUNTS`: bytes sent and received, messages, sums."""
    found: dict = {"ring": [], "naive": [], "values": []}
    for count in COUNTS:
        for name, algorithm in (("ring", ring), ("naive", gather_broadcast)):
            link = Link()
            values = torch.arange(count).float() * 10 ** dist.get_rank()
            algorithm(values, link)
            found[name].append((link.sent, link.received, link.messages))
            found["values"].append(values.tolist())
    return found


def die(path: str) -> None:
    """Rank 1 is killed while the others wait for it."""
    if dist.get_rank() == 1:
        with open(path, "w") as file:
            file.write(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)
    dist.recv(torch.zeros(1), 1)


@pytest.fixture(scope="module")
def three():
    return ranks.run_ranks(reduce_all, 3)


def test_bytes_of_the_ring_are_those_counted_by_hand(three):
    """Rank r sends parts r, r - 1 and then r + 1, r. Of 7 values part 0 has 3 and the others 2; floats have 4 bytes."""
    assert [answer["ring"][0] for answer in three] == [(40, 36, 4), (36, 40, 4), (36, 36, 4)]
    assert [answer["ring"][1] for answer in three] == [(32, 32, 4)] * 3  # 2 (n - 1) / n of 24 bytes
    assert sum(answer["ring"][2][0] for answer in three) == 2 * 2 * 8  # a part is empty: the total stays 2 (n - 1) S


def test_bytes_of_gather_and_broadcast_pass_the_root(three):
    assert [answer["naive"][0] for answer in three] == [(56, 56, 2), (28, 28, 1), (28, 28, 1)]


def test_every_rank_has_the_sum(three):
    expected = [[111.0 * i for i in range(count)] for count in COUNTS for _ in range(2)]
    assert [answer["values"] for answer in three] == [expected] * 3


def test_a_killed_rank_ends_the_run_in_seconds_with_one_line(tmp_path):
    with pytest.raises(RunFailure) as failure:
        ranks.run_ranks(die, 3, str(tmp_path / "time"))
    assert time.time() - float((tmp_path / "time").read_text()) < 20
    assert str(failure.value) == "rank 1 of 3 ended: signal SIGKILL; the others were stopped"
    assert failure.value.reason == "rank ended"


def test_the_killed_rank_is_named_where_another_is_heard_first(monkeypatch):
    monkeypatch.setattr(ranks, "GRACE", 0.05)
    pipes = [Pipe(duplex=False) for _ in range(2)]
    pipes[0][1].send((False, "RuntimeError: Connection closed by peer"))
    processes = [SimpleNamespace(exitcode=None), SimpleNamespace(exitcode=-9)]
    told = ranks._answers([receiver for receiver, _ in pipes], processes)
    assert told == "rank 1 of 2 ended: signal SIGKILL; the others were stopped"
    pipes[1][1].send((False, "ValueError: no"))
    told = ranks._answers([pipes[1][0]], [SimpleNamespace(exitcode=1)])
    assert told == "rank 0 of 1 ended: ValueError: no; the others were stopped"


@pytest.mark.parametrize("number", [1, 65])
def test_a_number_of_ranks_that_cannot_be(number):
    with pytest.raises(UserError, match=f"{number} processes cannot reduce an array: give 2 to 64"):
        ranks.run_ranks(reduce_all, number)


@pytest.mark.parametrize("sizes", [[], [0], [4096, 15]])
def test_an_array_has_a_value_for_each_rank(sizes):
    with pytest.raises(UserError, match="a float32 for each rank, 16 bytes or more"):
        model.build(4, sizes, (1, 1))


def answer(count, sent, seconds=None):
    found = {
        "sent": [sent], "ring_bytes": [2 * sent], "naive_bytes": [3 * sent], "whole_error": [0.0],
        "rounding_share": 0.5, "bits": np.arange(3),
    }  # fmt: skip
    return found | ({"seconds": seconds} if seconds else {})


def test_more_ranks_than_cores_are_told_and_not_timed(monkeypatch):
    def fake(function, number, seed, counts, repeats):
        assert repeats is None and counts == [16]
        return [answer(16, 96)] * 4

    monkeypatch.setattr(model, "cores", lambda: 2)
    monkeypatch.setattr(model, "run_ranks", fake)
    row = model.build(4, [64], [2, 3])
    assert row.told == {"not timed": "4 processes on 2 cores: times would be the scheduler's"}
    assert not row.curves and "speedup_large" not in row.metrics
    assert row.metrics["bytes_ratio"] == 1 and row.metrics["busiest_ratio"] == 1.5 and row.metrics["ranks_differ"] == 0
    assert np.array_equal(row.found, row.stated)


def test_a_byte_too_many_and_a_rank_with_other_bits_are_seen(monkeypatch):
    odd = answer(16, 97) | {"bits": np.arange(3)[::-1]}
    monkeypatch.setattr(model, "cores", lambda: 2)
    monkeypatch.setattr(model, "run_ranks", lambda *_: [answer(16, 96)] * 3 + [odd])
    row = model.build(4, [64], [2, 3])
    assert np.abs(np.subtract(row.found, row.stated)).max() == 1
    assert row.metrics["ranks_differ"] == 1 and row.metrics["bytes_ratio"] == 97 / 96


def test_the_fit_finds_latency_and_bandwidth():
    sizes = [4096, 65536, 1048576]
    seconds = [2 * 3 * 50e-6 + 2 * 3 / 4 * size / 1e9 for size in sizes]
    latency, per_byte, error = model.fit(4, sizes, seconds)
    assert latency == pytest.approx(50e-6) and per_byte == pytest.approx(1e-9) and error == pytest.approx(0, abs=1e-9)
    assert model.fit(2, sizes, [1e-3] * 3)[1] > 0  # where size costs nothing


def test_a_call_lasts_until_its_last_rank_and_the_shortest_repeat_counts():
    row = Measured("", [], [])
    ring_times = ([[5.0, 3.0], [9.0, 8.0]], [[4.0, 6.0], [7.0, 9.0]])  # rank, size, repeat: 5 and 6; 9 and 9
    seconds = [{"ring": t, "gather_broadcast": [[10.0], [18.0]], "torch": [[1.0], [3.0]]} for t in ring_times]
    model.add_times(row, 2, [4, 8], seconds)
    assert row.curves["time_ring"].y == [5000.0, 9000.0]
    found = {name: row.metrics[name] for name in ("speedup_small", "speedup_large", "library_speedup")}
    assert found == {"speedup_small": 2.0, "speedup_large": 2.0, "library_speedup": 3.0}
