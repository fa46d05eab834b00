"""Snakemake killed outright, and two at once: no orphan, no stale lock, nothing finished is lost."""

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
    """The training jobs of a snakemake, once they have begun to train."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        children = psutil.Process(process.pid).children(recursive=True)
        jobs = [child for child in children if "replications" in " ".join(child.cmdline())]
        if len(jobs) >= 1 and any("run" in job.cmdline() for job in jobs):
            return jobs
        time.sleep(0.1)
    raise AssertionError("no job has started")


def test_no_job_outlives_snakemake_and_no_lock_stays(copy):
    copy.set_steps(1_000_000)
    first = copy.start("alpha", "--config", "tier=smoke", "throughput=false")
    try:
        jobs = jobs_of(first)
        said = copy.snakemake("alpha", config=("throughput=false",), code=1)
        assert f"error: another snakemake (process {first.pid}) is at work in {copy.root}" in said
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


def test_snakemake_told_to_end_leaves_what_is_finished(copy):
    before = copy.records()
    copy.model("beta").write_text(copy.model("beta").read_text().replace("16.0 * cosine", "24.0 * cosine"))
    process = copy.start("alpha", "--config", "tier=smoke", "throughput=false")
    jobs = jobs_of(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not psutil.wait_procs(jobs, timeout=20)[1]
    assert copy.records().get("alpha/plain") == before["alpha/plain"]
    copy.snakemake("alpha", config=("throughput=false",))
    assert set(copy.records()) == {"alpha/plain", "beta/margin"}
