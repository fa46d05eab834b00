"""The time that a running workflow still takes: estimates, the pace so far, and looks that may follow."""

import time
from types import SimpleNamespace

import pytest

from replications.planning import remaining
from replications.planning.remaining import PRIOR, Left, Remaining
from replications.planning.terminal import Job, Terminal


def job(rule="train_0,1,2", seconds=600, threads=1, gpu=0, **wildcards):
    resources = {"seconds": seconds, "gpu": gpu}
    return SimpleNamespace(
        rule=SimpleNamespace(name=rule), wildcards_dict=wildcards, output=["x"], threads=threads, resources=resources
    )


def running(seconds, threads=1, **resources):
    return Job("x", "train_0", "arcface", [], "", None, threads, {"seconds": seconds, "gpu": 0, **resources})


@pytest.fixture
def more(monkeypatch):
    """What looks may add: runs, seconds, whether on a GPU; and the jobs that `later` was asked about."""
    said = SimpleNamespace(found=None, jobs=[])

    def later(plan, jobs):
        said.jobs = jobs
        return said.found

    monkeypatch.setattr(remaining, "later", later)
    return said


def left_of(*jobs, cores=2, slots=0, now=()):
    return Remaining(None, cores, slots, lambda: jobs).left(now)


def test_open_runs_share_the_cores_and_finished_ones_and_other_jobs_take_nothing(more):
    jobs = [(job(), False), (job(threads=2, seconds=60), False), (job(), True), (job("prepare", -1), False)]
    assert left_of(*jobs) == Left(360, 360)
    assert left_of((job(), True)) is None, "no run is left"


def test_a_run_of_unknown_length_takes_as_long_as_the_others(more):
    assert left_of((job(), False), (job(seconds=-1), False), cores=1) == Left(1200, 1200)
    assert left_of((job(seconds=-1), False), cores=1).least == remaining.UNKNOWN_RUN


def test_runs_share_the_slots_of_gpus_and_on_a_cluster_nothing_is_said(more):
    jobs = [(job(gpu=1), False), (job(gpu=1), False), (job(seconds=100), False)]
    assert left_of(*jobs, slots=4) == Left(300, 300)
    assert left_of(*jobs, slots=None) is None and left_of(jobs[-1], slots=None) == Left(50, 50)


def test_the_pace_of_finished_runs_counts_and_the_first_few_seconds_say_little(more):
    found = Remaining(None, 1, 0, lambda: [(job(), False)])
    found.note(running(PRIOR), 3 * PRIOR)
    assert found.left() == Left(1200, 1200), "twice as long as estimated, with the prior"
    found.note(running(-1), 1e6)
    assert found.left() == Left(1200, 1200), "a job without an estimate says nothing of the pace"


def test_running_jobs_have_had_a_part_but_no_more_than_all(more, monkeypatch):
    long, short = running(600), running(60)
    monkeypatch.setattr(time, "monotonic", lambda: long.started + 300)
    found = left_of((job(), False), (job(seconds=60), False), cores=1, now=[long, short])
    assert found.least == pytest.approx(300, abs=1)


def test_looks_that_may_follow_make_it_a_range(more):
    more.found = (4, 1200, False)
    judged, waits = job("judge", 0, paper="arcface", look="1"), job("judge", 0, paper="vit", look="1")
    assert left_of((job(), False), (judged, True), (waits, False)) == Left(300, 900)
    assert [j.paper for j in more.jobs if j.rule == "judge"] == ["vit"], "what is judged has its further runs as jobs"
    assert [j.look for j in more.jobs if j.rule == "judge"] == [1]
    more.found = (4, -1, False)
    assert left_of((job(), False)) == Left(300, 300), "unknown"


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (Left(40, 40.4), "40 s"),
        (Left(4260, 6900), "71 min to 1.9 h"),
        (Left(4260, 5300), "71 to 88 min"),
        (Left(40, 600), "40 s to 10 min"),
        (Left(60, 600).after(59.5), "1 s to 9 min"),
    ],
)
def test_it_reads(left, text):
    assert str(left) == text


def test_the_status_counts_down_between_two_jobs(monkeypatch):
    shown = Terminal(SimpleNamespace(), dryrun=False, cores=1, remaining=SimpleNamespace(left=lambda of: Left(90, 600)))
    shown.total = 4
    shown._progress(SimpleNamespace(total=4))
    then = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: then + 60)
    assert "0/4, about 30 s to 9 min left" in shown._status()
