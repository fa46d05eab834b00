"""Snakemake killed outright, and two at once: no orphan, no stale lock, finished work is kept."""

import contextlib
import os
import signal
import time

import psutil
import pytest
from workflow_copy import make_copy

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return make_copy(tmp_path_factory.mktemp("stopped"))


def jobs_of(process) -> list[psutil.Process]:
    """The training jobs of a snakemake, once there is one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.Error):  # a child may end while it is looked at
            children = psutil.Process(process.pid).children(recursive=True)
            jobs = [child for child in children if {"replications", "run"} <= set(child.cmdline())]
            if jobs:
                return jobs
        time.sleep(0.1)
    raise AssertionError("no job has started")


def test_no_job_outlives_snakemake_and_no_lock_stays(copy):
    copy.set_steps(1_000_000)
    first = copy.start("alpha", "--config", "tier=smoke", "throughput=false")
    try:
        jobs = jobs_of(first)
        said = copy.snakemake("alpha", config=("throughput=false",), code=1)
        assert f"error: another snakemake (process {first.pid}) is running in {copy.root}" in said
        assert all(job.is_running() for job in jobs), "the second one disturbs nothing"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    _, alive = psutil.wait_procs(jobs, timeout=5)
    for orphan in alive:
        orphan.kill()
    assert not alive
    assert not copy.records()
    copy.set_steps(6)
    copy.snakemake("alpha", config=("throughput=false",))
    assert set(copy.records()) == {"alpha/plain", "beta/margin"}


def test_ctrl_c_stops_the_jobs_and_loses_nothing_that_is_finished(copy):
    before = copy.records()
    paper = copy.model("beta").parent / "paper.yaml"
    original = paper.read_text()
    endless = "title: Margin, recipe: {steps: 1000000}, why: it is stopped,"
    paper.write_text(original.replace("title: Margin,", endless))
    process = copy.start("alpha", "--config", "tier=smoke", "throughput=false", new_session=True)
    try:
        jobs = jobs_of(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert not psutil.wait_procs(jobs, timeout=20)[1]
    assert copy.records().get("alpha/plain") == before["alpha/plain"]
    assert "beta/margin" not in copy.records(), "a run that was stopped leaves no row"
    paper.write_text(original)
    copy.snakemake("alpha", config=("throughput=false",))
    assert copy.records() == before
